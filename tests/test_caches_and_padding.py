"""Every class of both architectures: padding on either side, caches, unknown arguments."""

import pytest
import torch
from torch.testing import assert_close
from transformers import ContinuousBatchingConfig, DynamicCache, GenerationConfig, StaticCache

import gpt1_hf
from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1LSTMConfig
from gpt1_hf.modeling_gpt1_heads import CACHE


VOCAB, LENGTH, PADDING = 97, 6, 3
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
CLASSES = (
    "GPT1Model",
    "GPT1ForCausalLM",
    "GPT1ForSequenceClassification",
    "GPT1ForMultipleChoice",
    "GPT1ForTokenClassification",
)
LSTM_CLASSES = tuple(name.replace("GPT1", "GPT1LSTM") for name in CLASSES)
LANGUAGE_MODELS = pytest.mark.parametrize("name", ["GPT1ForCausalLM", "GPT1LSTMForCausalLM"])
HEADS = tuple(name for name in (*CLASSES, *LSTM_CLASSES) if not name.endswith(("Model", "ForCausalLM")))


def tiny(name: str, **changes):
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 32}
    sizes |= {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "classifier_dropout": 0.0, "initializer_range": 0.3}
    sizes |= {"num_labels": 3, "pad_token_id": 0}
    if "LSTM" in name:
        config = GPT1LSTMConfig(lstm_size=24, **{**sizes, **changes})
    else:
        config = GPT1Config(num_attention_heads=4, attn_pdrop=0.0, **{**sizes, **changes})
    torch.manual_seed(0)
    return getattr(gpt1_hf, name)(config).eval()


def ids_for(name: str, length: int = LENGTH, seed: int = 0) -> torch.Tensor:
    shape = (2, 3, length) if "MultipleChoice" in name else (2, length)
    return torch.randint(1, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def labels_for(name: str, ids: torch.Tensor) -> torch.Tensor:
    return ids % 3 if "Token" in name else torch.tensor([0, 2])


def answer(outputs) -> torch.Tensor:
    return outputs[0] if "logits" not in outputs else outputs.logits


def is_by_token(name: str) -> bool:
    return not name.endswith(("SequenceClassification", "MultipleChoice"))


POSITIONS = [(name, kind) for name in CLASSES for kind in ("learned", "sinusoidal", "none")]
POSITIONS += [(name, None) for name in LSTM_CLASSES]


@LANGUAGE_MODELS
def test_exactly_one_kind_of_input_is_accepted(name):
    model = tiny(name)
    with pytest.raises(ValueError, match="exactly one"):
        model()
    with pytest.raises(ValueError, match="exactly one"):
        model(ids_for(name), inputs_embeds=torch.zeros(2, LENGTH, 32))


@LANGUAGE_MODELS
def test_a_cache_is_created_only_on_request(name):
    model, ids = tiny(name), ids_for(name)
    assert getattr(model(ids), CACHE).get_seq_length() == LENGTH
    assert getattr(model(ids, use_cache=False), CACHE) is None
    model.config.use_cache = False
    assert getattr(model(ids), CACHE) is None


@pytest.mark.parametrize(("name", "kind"), POSITIONS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_padded_row_has_the_outputs_of_the_unpadded_one(name, kind, side, use_cache):
    model = tiny(name, **({"position_embedding_type": kind} if kind else {}))
    ids = ids_for(name)
    padding = ids.new_zeros(*ids.shape[:-1], PADDING)
    parts = (padding, ids) if side == "left" else (ids, padding)
    padded = torch.cat(parts, -1)
    mask = torch.cat([torch.full_like(part, int(part is ids)) for part in parts], -1)
    found = answer(model(padded, attention_mask=mask, use_cache=use_cache))
    if is_by_token(name):
        found = found[:, PADDING:] if side == "left" else found[:, :LENGTH]
    assert_close(found, answer(model(ids)), **CLOSE)


@pytest.mark.parametrize("name", CLASSES)
def test_a_padded_row_has_the_outputs_of_the_unpadded_one_when_compiled(name):
    model = tiny(name)
    ids = ids_for(name)
    padded = torch.nn.functional.pad(ids, (PADDING, 0))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (PADDING, 0))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = answer(compiled(padded, attention_mask=mask, use_cache=False))
    found = found[:, PADDING:] if is_by_token(name) else found
    assert_close(found, answer(model(ids)), **CLOSE)


@pytest.mark.parametrize("name", ["GPT1ForCausalLM", "GPT1LSTMForCausalLM"])
def test_left_padded_steps_from_a_cache_need_no_positions(name):
    model, ids = tiny(name), ids_for(name)
    padded = torch.nn.functional.pad(ids, (PADDING, 0))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (PADDING, 0))
    cuts = (0, PADDING + 2, PADDING + 3, PADDING + LENGTH)
    cache, logits = DynamicCache(config=model.config), []
    for start, end in zip(cuts, cuts[1:], strict=False):
        logits.append(model(padded[:, start:end], attention_mask=mask[:, :end], cache=cache).logits)
    assert_close(torch.cat(logits, 1)[:, PADDING:], model(ids).logits, **CLOSE)


def test_a_static_cache_counts_positions_too():
    model, ids = tiny("GPT1ForCausalLM"), ids_for("GPT1ForCausalLM")
    cache = StaticCache(config=model.config, max_cache_len=20)
    padded = torch.nn.functional.pad(ids, (PADDING, 0))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (PADDING, 0))
    first = model(padded[:, :5], attention_mask=mask[:, :5], cache=cache).logits
    second = model(padded[:, 5:], attention_mask=mask, cache=cache).logits
    assert_close(torch.cat([first, second], 1)[:, PADDING:], model(ids).logits, **CLOSE)


def test_a_mask_that_leaves_out_the_cache_is_refused():
    model, ids = tiny("GPT1ForCausalLM"), ids_for("GPT1ForCausalLM")
    cache = getattr(model(ids), CACHE)
    with pytest.raises(ValueError, match="attention_mask has 1 columns, but cache and input together have 7 tokens"):
        model(ids[:, :1], attention_mask=torch.ones(2, 1), cache=cache)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("padding", [0, PADDING])
def test_a_cached_beginning_has_the_task_loss_of_the_whole(name, with_mask, padding):
    if padding and not with_mask:
        pytest.skip("without a mask nothing says that the cache holds padding")
    model, ids = tiny(name), ids_for(name)
    ids = torch.nn.functional.pad(ids, (padding, 0))
    mask = (ids != 0).long()
    labels = labels_for(name, ids)
    if "Token" in name:
        labels[..., : padding + 2] = -100  # the beginning has no labels if it is not in the input
    whole = model(ids, attention_mask=mask, labels=labels)
    cut = padding + 2
    first = model(ids[..., :cut], attention_mask=mask[..., :cut], use_cache=True)
    rest = {"attention_mask": mask if with_mask else None}
    second = model(
        ids[..., cut:], cache=getattr(first, CACHE), labels=labels[..., cut:] if "Token" in name else labels, **rest
    )
    assert_close(second.task_loss, whole.task_loss, **CLOSE)
    second.loss.backward()
    assert model.classifier.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", (*CLASSES, *LSTM_CLASSES))
def test_both_names_of_the_cache_are_one_argument(name):
    model, ids = tiny(name), ids_for(name)
    caches = [getattr(model(ids[..., :3], use_cache=True), CACHE) for _ in "ab"]
    found = [answer(model(ids[..., 3:], **{key: caches[i]})) for i, key in enumerate(("cache", "past_key_values"))]
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="two names of the same argument"):
        model(ids, cache=caches[0], past_key_values=caches[1])


@pytest.mark.parametrize("name", (*CLASSES, *LSTM_CLASSES))
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("atention_mask", "did you mean 'attention_mask'"),
        ("position_id", "did you mean 'position_ids'"),
        ("label", "did you mean 'labels'"),
        ("lm_labels", "did you mean 'labels'"),
        ("past_key_value", "did you mean 'past_key_values'"),
        ("output_hidden_state", "did you mean 'output_hidden_states'"),
    ],
)
def test_a_misspelt_argument_is_refused(name, argument, message):
    with pytest.raises(TypeError, match=message):
        tiny(name)(ids_for(name), **{argument: torch.ones(2, LENGTH)})


@pytest.mark.parametrize("name", ["GPT1Model", "GPT1LSTMModel"])
@pytest.mark.parametrize("argument", ["labels", "logits_to_keep", "skip_logits", "branch_starts"])
def test_arguments_of_the_heads_are_refused_by_the_base_model(name, argument):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{argument}', which only models with a head"):
        tiny(name)(ids_for(name), **{argument: 1})


def test_an_unknown_argument_is_named_and_reaches_the_attention_function(caplog, monkeypatch):
    seen = []
    model = tiny("GPT1ForCausalLM", attn_implementation="eager")
    for block in model.transformer.h:
        block.attn.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["flavour"]), with_kwargs=True)
    model(ids_for("GPT1ForCausalLM"), flavour="vanilla")
    assert seen == ["vanilla"] * 2


@pytest.mark.parametrize("name", ["GPT1ForCausalLM", "GPT1LSTMForCausalLM"])
def test_activation_checkpointing_refuses_a_cache_that_holds_tokens(name):
    model, ids = tiny(name).train(), ids_for(name)
    cache = getattr(model(ids), CACHE)
    model.activation_checkpointing_enable()
    with pytest.raises(ValueError, match="activation checkpointing cannot extend it"):
        model(ids, cache=cache)
    outputs = model(ids, labels=ids, use_cache=True)
    outputs.loss.backward()
    assert getattr(outputs, CACHE) is None


def test_continuous_batching_continues_as_generate_does():
    model, ids = tiny("GPT1ForCausalLM"), ids_for("GPT1ForCausalLM")
    options = GenerationConfig(max_new_tokens=6, do_sample=False, eos_token_id=-1, pad_token_id=0)
    expected = model.generate(ids, max_new_tokens=6, do_sample=False)[:, LENGTH:].tolist()
    small = ContinuousBatchingConfig(num_blocks=4, max_batch_tokens=64)  # by default it takes most of the memory
    found = model.generate_batch(ids.tolist(), generation_config=options, continuous_batching_config=small)
    assert [output.generated_tokens for output in found.values()] == expected


def test_float_label_matrices_are_several_labels_and_one_label_is_a_score():
    ids = ids_for("GPT1ForSequenceClassification")
    for num_labels, labels, kind in (
        (3, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), "multi_label_classification"),
        (3, torch.tensor([2, 0]), "single_label_classification"),
        (1, torch.tensor([0.5, 2.0]), "regression"),
    ):
        model = tiny("GPT1ForSequenceClassification", num_labels=num_labels, lm_coef=0.0)
        loss, logits = model(ids, labels=labels).to_tuple()[:2]
        expected = {
            "multi_label_classification": torch.nn.functional.binary_cross_entropy_with_logits,
            "single_label_classification": torch.nn.functional.cross_entropy,
            "regression": torch.nn.functional.mse_loss,
        }[kind](logits.squeeze(-1), labels)
        assert_close(loss, expected, **CLOSE)
        assert model.config.problem_type == kind
    model = tiny("GPT1ForSequenceClassification")
    with pytest.raises(ValueError, match="an integer class id for each row, or a float for each logit"):
        model(ids, labels=torch.tensor([1.0, 0.0]))


def test_every_head_reports_labels_that_a_trainer_withheld():
    for name in HEADS:
        ids = ids_for(name)
        with pytest.raises(ValueError, match="num_items_in_batch without labels"):
            tiny(name)(ids, num_items_in_batch=2)
        assert "loss" not in tiny(name, lm_coef=0.0)(ids, num_items_in_batch=2)
    GPT1ForCausalLM(GPT1Config(vocab_size=9, hidden_size=8, num_attention_heads=2, num_hidden_layers=1))(
        torch.tensor([[1, 2]]), num_items_in_batch=2
    )


@pytest.mark.parametrize("name", ["GPT1ForSequenceClassification", "GPT1LSTMForSequenceClassification"])
def test_a_model_trained_on_both_orders_refuses_one(name, tmp_path):
    model = tiny(name).train()
    pair = torch.stack([ids_for(name), ids_for(name, seed=1)], 1)  # (batch, 2, seq)
    model(pair, labels=torch.tensor([0, 1])).loss.backward()
    model.save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path)
    assert model(pair).logits.shape == (2, 3)
    with pytest.raises(ValueError, match="reads a pair in both orders"):
        model(pair[:, 0])
    # Training for another task makes it another model.
    model.train()(pair[:, 0], labels=torch.tensor([0, 1])).loss.backward()
    assert model.eval()(pair[:, 0]).logits.shape == (2, 3)


def test_a_continuation_beyond_the_context_is_refused_at_once():
    model, ids = tiny("GPT1ForCausalLM", max_position_embeddings=16), ids_for("GPT1ForCausalLM")
    calls = []
    model.transformer.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match="max_length 18 is more than this model's context holds"):
        model.generate(ids, max_new_tokens=12)
    assert not calls
    assert model.generate(ids, max_new_tokens=11, do_sample=False).shape == (2, 17)  # the last one is not read again
    unlimited = tiny("GPT1ForCausalLM", max_position_embeddings=16, position_embedding_type="none")
    assert unlimited.generate(ids, max_new_tokens=20, do_sample=False).shape == (2, 26)
    lstm = tiny("GPT1LSTMForCausalLM", max_position_embeddings=16)
    assert lstm.generate(ids, max_new_tokens=20, do_sample=False).shape == (2, 26)
