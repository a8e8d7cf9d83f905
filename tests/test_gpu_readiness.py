"""What costs time on a GPU, tested without one: waits for values, graph breaks, and recompilations.

Tensors on the device `meta` have no values, so code that looks at one fails there. On a GPU it would wait for all
queued work. The models treat both devices alike (`is_readable`).
"""

import pytest
import torch
from helpers.models import CLOSE, mask_of, random_ids, randomize, tiny_config
from torch.testing import assert_close
from transformers import StaticCache

from gpt1_hf import (
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1TrainingArguments,
)


def lm(batch, seq):
    ids = random_ids(batch, seq)
    return {"input_ids": ids, "labels": ids.clone(), "skip_logits": True}


def lm_with_logits(batch, seq):
    return {**lm(batch, seq), "skip_logits": False}


def padded_lm(batch, seq):
    return {**lm(batch, seq), "attention_mask": padding(batch, seq)}


def packed_lm(batch, seq):
    return {**lm(1, batch * seq), "position_ids": torch.arange(seq).repeat(batch)[None]}


def padding(batch, seq):
    return (torch.arange(seq) < torch.arange(2, batch + 2)[:, None]).long()


def texts(batch, seq):
    return {
        "input_ids": random_ids(batch, seq),
        "attention_mask": padding(batch, seq),
        "labels": torch.arange(batch) % 3,
    }


def texts_without_mask(batch, seq):
    return {"input_ids": random_ids(batch, seq), "labels": torch.arange(batch) % 3}


def packed_texts(batch, seq):
    batch_of = packed_lm(batch, seq)
    return {name: batch_of[name] for name in ("input_ids", "position_ids")} | {"labels": torch.arange(batch) % 3}


def several_labels(batch, seq):
    return {**texts(batch, seq), "labels": torch.ones(batch, 7)}


def scores(batch, seq):
    return {**texts(batch, seq), "labels": torch.linspace(0, 5, batch)}


def in_two_rows(inputs):
    return {name: values if name == "labels" else torch.stack([values, values], 1) for name, values in inputs.items()}


def pairs(batch, seq):
    return in_two_rows(scores(batch, seq))


def choices(batch, seq):
    return in_two_rows({**texts(batch, seq), "labels": torch.arange(batch) % 2})


def shared_prefixes(batch, seq):
    starts = torch.tensor([[3, 6]]).repeat(batch, 1)
    mask = torch.ones(batch, seq, dtype=torch.long)
    labels = torch.arange(batch) % 2
    return {"input_ids": random_ids(batch, seq), "attention_mask": mask, "branch_starts": starts, "labels": labels}


def tags(batch, seq):
    return {**texts(batch, seq), "labels": random_ids(batch, seq) % 3}


def packed_tags(batch, seq):
    return {**packed_texts(batch, seq), "labels": random_ids(1, batch * seq) % 3}


# The first batch otherwise sets it, which compiles the step a second time.
CLASSES = {"num_labels": 3, "problem_type": "single_label_classification"}
BINS = {"num_labels": 1, "regression_bins": 6}
CASES = {
    lm: (GPT1ForCausalLM, {}),
    lm_with_logits: (GPT1ForCausalLM, {}),
    padded_lm: (GPT1ForCausalLM, {}),
    packed_lm: (GPT1ForCausalLM, {}),
    texts: (GPT1ForSequenceClassification, CLASSES),
    texts_without_mask: (GPT1ForSequenceClassification, {**CLASSES, "pad_token_id": 0}),
    packed_texts: (GPT1ForSequenceClassification, {**CLASSES, "pad_token_id": 0}),
    several_labels: (
        GPT1ForSequenceClassification,
        {"num_labels": 7, "problem_type": "multi_label_classification"},
    ),
    scores: (GPT1ForSequenceClassification, BINS),
    pairs: (GPT1ForSequenceClassification, {**BINS, "both_orders": True}),
    choices: (GPT1ForMultipleChoice, {}),
    shared_prefixes: (GPT1ForMultipleChoice, {}),
    tags: (GPT1ForTokenClassification, {"num_labels": 3}),
    packed_tags: (GPT1ForTokenClassification, {"num_labels": 3, "pad_token_id": 0}),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


def model_of(case, attention="sdpa"):
    model_class, settings = CASES[case]
    config = tiny_config(num_hidden_layers=1, max_position_embeddings=64, **settings)
    return randomize(model_class._from_config(config, attn_implementation=attention))


def on_meta(inputs):
    return {name: values.to("meta") if torch.is_tensor(values) else values for name, values in inputs.items()}


@EVERY_CASE
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("training", [True, False])
def test_no_step_waits_for_a_value(case, attention, training):
    model = model_of(case, attention).to("meta").train(training)
    outputs = model(**on_meta(case(3, 12)), num_items_in_batch=torch.ones((), device="meta"))
    if training:
        outputs.loss.backward()


def test_a_value_that_is_read_fails_on_meta():
    with pytest.raises(RuntimeError, match="meta"):
        bool(torch.ones((), device="meta") > 0)


@EVERY_CASE
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_way_without_waiting_gives_the_same_loss_and_gradients(case, attention, monkeypatch):
    found = []
    for readable in (True, False):
        if not readable:
            for module in ("modeling_gpt1", "modeling_gpt1_heads"):
                monkeypatch.setattr(f"gpt1_hf.{module}.is_readable", lambda value: False)
        model = model_of(case, attention).train()
        loss = model(**case(3, 12)).loss
        loss.backward()
        found.append({"loss": loss.detach()} | {name: one.grad for name, one in model.named_parameters()})
    assert_close(*found, **CLOSE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("with_mask", [True, False])
def test_decoding_with_a_static_cache_waits_for_no_value(attention, with_mask):
    model = model_of(lm, attention).to("meta")
    cache = StaticCache(config=model.config, max_cache_len=24)
    ids, mask = random_ids(3, 12).to("meta"), mask_of("left").to("meta")
    longer = torch.nn.functional.pad(mask, (0, 1), value=1)
    with torch.no_grad():
        model(ids, cache=cache, attention_mask=mask if with_mask else None)
        model(ids[:, :1], cache=cache, attention_mask=longer if with_mask else None)


def test_a_gpu_refuses_too_long_texts_by_their_shape():
    model = model_of(lm).to("meta")
    with pytest.raises(ValueError, match="needs 65 positions"):
        model(random_ids(1, 65).to("meta"))


def test_packed_rows_on_a_gpu_need_a_label_for_each_sequence(monkeypatch):
    monkeypatch.setattr("gpt1_hf.modeling_gpt1_heads.is_readable", lambda value: False)
    inputs = packed_texts(3, 12) | {"labels": torch.tensor([0, 1])}
    with pytest.raises(RuntimeError, match="as many labels as sequences"):
        model_of(packed_texts)(**inputs)


@pytest.mark.slow
@EVERY_CASE
@pytest.mark.filterwarnings("ignore")
def test_a_training_step_is_one_graph_for_all_batch_sizes_and_lengths(case):
    torch.compiler.reset()
    model = model_of(case).train()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for index, shape in enumerate([(3, 12), (4, 10), (5, 11)]):
        with torch._dynamo.config.patch(error_on_recompile=index > 0):
            loss = compiled(**case(*shape)).loss
        loss.backward()
        assert_close(loss, model(**case(*shape)).loss, **CLOSE)


def test_data_is_pinned_and_copied_while_an_accelerator_computes(tmp_path, monkeypatch):
    without = GPT1TrainingArguments(output_dir=str(tmp_path))
    assert without.accelerator_config.non_blocking is without.dataloader_pin_memory is torch.accelerator.is_available()
    assert without.optim.value == "adamw_torch_fused"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    arguments = GPT1TrainingArguments(output_dir=str(tmp_path))
    assert arguments.accelerator_config.non_blocking
    assert arguments.dataloader_pin_memory
    own = GPT1TrainingArguments(output_dir=str(tmp_path), accelerator_config={"non_blocking": False})
    assert not own.accelerator_config.non_blocking
