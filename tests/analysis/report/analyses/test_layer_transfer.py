"""Layer transfer: which weights are pre-trained, and which are new."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from gpt1_hf import GPT1LSTMConfig, GPT1LSTMForCausalLM
from gpt1_hf.analysis.report.analyses import layer_transfer
from gpt1_hf.analysis.report.runs import CollectedRun
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.results import Result
from gpt1_hf.training.arguments import FinetuneArguments
from gpt1_hf.training.finetune import finetune, keep_layers


def blocks(model) -> list[dict[str, torch.Tensor]]:
    return [{name: tensor.clone() for name, tensor in block.state_dict().items()} for block in model.base_model.h]


def matrices(block: dict[str, torch.Tensor]) -> list[str]:
    return [name for name, tensor in block.items() if tensor.dim() == 2]


@pytest.mark.parametrize("n_layers", [0, 1, 2])
def test_the_first_blocks_stay_and_the_others_are_new(n_layers, base_model):
    model = AutoModelForSequenceClassification.from_pretrained(base_model)
    with torch.no_grad():  # as training leaves them: gains that are not 1, biases that are not 0
        for parameter in model.base_model.parameters():
            parameter.add_(0.5)
    before, embeddings = blocks(model), model.base_model.tokens_embed.weight.clone()
    positions = model.base_model.positions_embed.weight.clone()
    keep_layers(model, n_layers)
    after = blocks(model)
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        for name in old:
            assert torch.equal(old[name], new[name]) == (number < n_layers), (number, name)
        if number >= n_layers:
            for name in matrices(new):
                assert new[name].std() == pytest.approx(model.config.initializer_range, rel=0.15), name
                assert abs(new[name].mean()) < 0.005
            assert (new["ln_1.weight"] == 1).all() and (new["mlp.up_proj.bias"] == 0).all()
    assert torch.equal(model.base_model.tokens_embed.weight, embeddings)
    assert torch.equal(model.base_model.positions_embed.weight, positions)


def test_new_blocks_differ_from_one_another_and_from_seed_to_seed(base_model):
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(base_model)
        torch.manual_seed(seed)
        keep_layers(model, 0)
        drawn.append(blocks(model))
    same, again, other = drawn
    for name in matrices(same[0]):
        assert torch.equal(same[0][name], again[0][name])
        assert not torch.equal(same[0][name], other[0][name])
        assert not torch.equal(same[0][name], same[1][name])


def test_the_lstm_has_blocks_too(tmp_path):
    config = GPT1LSTMConfig(vocab_size=40, hidden_size=16, lstm_size=24)
    GPT1LSTMForCausalLM(config).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    before = blocks(model)
    keep_layers(model, 1)
    assert all(torch.equal(before[0][name], tensor) for name, tensor in blocks(model)[0].items())
    keep_layers(model, 0)
    assert not torch.equal(before[0]["lstm.weight_hh_l0"], blocks(model)[0]["lstm.weight_hh_l0"])


def arguments(base_model, folder, **changes):
    settings = {"task": "sst2", "model": base_model, "sample": True, "max_train_examples": 8, "disable_tqdm": True}
    settings |= {"use_cpu": True, "learning_rate": 0.0, "num_train_epochs": 1, "output_dir": str(folder)}
    return FinetuneArguments(**{**settings, **changes})


def test_fine_tuning_starts_from_them_and_scores_the_training_rows(base_model, tmp_path):
    """At a learning rate of 0, a run keeps its initial weights."""
    original = blocks(AutoModelForSequenceClassification.from_pretrained(base_model))
    for n_layers, kept in ((1, [True, False]), (None, [True, True])):
        folder = tmp_path / str(n_layers)
        results = finetune(arguments(base_model, folder, transfer_layers=n_layers, score_train=n_layers == 1))
        tuned = blocks(AutoModelForSequenceClassification.from_pretrained(folder))
        name = "mlp.up_proj.weight"
        assert [torch.equal(old[name], new[name]) for old, new in zip(original, tuned, strict=True)] == kept
        splits = {result.split: result.n_examples for result in results}
        assert splits.get("train") == (8 if n_layers == 1 else None)
        assert results[0].details["transfer_layers"] == n_layers
        assert (folder / "trainer_state.json").is_file()


def test_an_invalid_number_of_layers_is_refused(base_model, tmp_path):
    for n_layers in (-1, 3):
        with pytest.raises(GPT1Error, match="from 0 to 2, the model's"):
            finetune(arguments(base_model, tmp_path, transfer_layers=n_layers))


def test_the_curve_shows_means_over_seeds():
    runs = []
    for n_layers, split, values in ((0, "validation", (50, 60)), (2, "validation", (70,)), (0, "train", (90,))):
        for seed, value in enumerate(values):
            details = {"transfer_layers": n_layers, "from_scratch": False}
            row = Result("sst2", split, "accuracy", value, 10, 91.3, "m", seed, details)
            runs.append(CollectedRun(f"{n_layers}-{split}-{seed}", [row]))
    (table,), (figure,) = layer_transfer.section(runs).tables, layer_transfer.section(runs).figures
    assert table.headers == ["task", "split", "0", "2", "constant answer", "verdict"]
    assert table.rows == [
        ["sst2", "train", "90.0", "not run", "unknown", ""],
        ["sst2", "validation", "55.0 ± 7.1 (2)", "70.0", "unknown", "2: open"],
    ]
    assert [(line.label, line.points, line.dashed) for line in figure.series] == [
        ("sst2 train", [(0, 90)], True),
        ("sst2 validation", [(0, 55), (2, 70)], False),
    ]


def test_models_rows_and_rates_have_curves_of_their_own_with_verdicts():
    runs = []
    for model, rate, shift in (("a", 1e-4, 0), ("b", 1e-4, 10), ("a", 2e-4, 20)):
        for n_layers, values in ((0, (50, 51, 52)), (1, (61, 63, 62)), (2, (60, 65, 61))):
            for seed, value in enumerate(values):
                details = {"transfer_layers": n_layers, "from_scratch": False, "learning_rate": rate}
                details |= {"constant_answer": 50.9, "train_loss": value}
                row = Result("sst2", "validation", "accuracy", value + shift, 10, 91.3, model, seed, details)
                runs.append(CollectedRun(f"{model}-{rate}-{n_layers}-{seed}", [row]))
    (table,) = layer_transfer.section(runs).tables
    assert table.headers[-3:] == ["constant answer", "verdict", "settings that differ"]
    assert [(row[2], *row[-3:]) for row in table.rows] == [
        (f"{mean} ± 1.0 (3)", "50.9", "1: yes, 2: open", f"model {model}, learning rate {rate}")
        for mean, model, rate in ((51.0, "a", 0.0001), (61.0, "b", 0.0001), (71.0, "a", 0.0002))
    ]
