"""The library's hooks on the models: ways to generate, attention implementations, parallel plans, and training of
every head."""

import re
import shutil

import pytest
import torch
from helpers.models import (
    CLOSE,
    HIDDEN,
    VOCAB,
    assert_same_gradients,
    generate,
    gradients,
    mask_of,
    padded_batch,
    random_ids,
    randomize,
    tiny_config,
    tiny_lm,
)
from torch.testing import assert_close
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available

from gpt1_hf import (
    GPT1ForCausalLM,
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1Model,
)
from gpt1_hf.modeling_gpt1_heads import CACHE


HEADS = [GPT1ForCausalLM, GPT1ForSequenceClassification, GPT1ForMultipleChoice, GPT1ForTokenClassification]
CLASSES = pytest.mark.parametrize("model_class", [GPT1Model, *HEADS])
EVERY_HEAD = pytest.mark.parametrize("head", HEADS)


def batch_for(model_class) -> dict[str, torch.Tensor]:
    """Inputs, with labels if the class accepts them."""
    ids = random_ids(4, 6)
    labels = {
        GPT1ForCausalLM: ids,
        GPT1ForSequenceClassification: ids[:, 0] % 3,
        GPT1ForMultipleChoice: torch.tensor([0, 1]),
        GPT1ForTokenClassification: ids % 3,
    }.get(model_class)
    if model_class is GPT1ForMultipleChoice:
        ids = ids.view(2, 2, 6)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return batch if labels is None else batch | {"labels": labels}


# Generation


def test_samples_follow_the_models_distribution():
    model, ids = tiny_lm(), random_ids(1, 5).expand(4000, -1)
    torch.manual_seed(0)
    sampled = model.generate(ids, max_new_tokens=1, do_sample=True, top_k=0, pad_token_id=0)[:, -1]
    expected = model(ids[:1]).logits[0, -1].softmax(-1)
    observed = torch.bincount(sampled, minlength=VOCAB) / len(ids)
    assert (observed - expected).abs().max() < 5 * (expected.max() / len(ids)).sqrt()


def test_beam_search_finds_the_best_of_all_sequences():
    # Two new tokens, and as many beams as tokens: no sequence is dropped, so the search is exhaustive.
    model, ids = tiny_lm(), random_ids(1, 5)
    best = model.generate(ids, max_new_tokens=2, num_beams=VOCAB, do_sample=False, pad_token_id=0)[0, -2:]
    first = model(ids).logits[0, -1].log_softmax(-1)
    longer = torch.cat((ids.expand(VOCAB, -1), torch.arange(VOCAB)[:, None]), dim=1)
    second = model(longer).logits[:, -1].log_softmax(-1)
    total = first[:, None] + second  # (first token, second token)
    assert best.tolist() == [total.argmax().item() // VOCAB, total.argmax().item() % VOCAB]


@pytest.mark.parametrize("how", ["other_assistant", "same_assistant", "prompt_lookup"])
def test_assisted_generation_equals_greedy_generation(how):
    model, ids = tiny_lm(), random_ids(1, 5).repeat(1, 2)
    options = {
        "other_assistant": {"assistant_model": randomize(GPT1ForCausalLM(tiny_config(num_hidden_layers=1)), seed=7)},
        "same_assistant": {"assistant_model": tiny_lm()},
        "prompt_lookup": {"prompt_lookup_num_tokens": 3},
    }[how]
    expected, expected_logits = generate(model, ids)
    sequences, logits = generate(model, ids, **options)
    assert torch.equal(sequences, expected)
    assert_close(logits, expected_logits, **CLOSE)


def test_generation_continues_from_a_cache_and_from_embeddings():
    model, ids = tiny_lm(), random_ids(2, 5)
    options = {"do_sample": False, "pad_token_id": 0, "return_dict_in_generate": True}
    whole = model.generate(ids, max_new_tokens=6, **options)
    first = model.generate(ids, max_new_tokens=3, **options)
    second = model.generate(first.sequences, **{CACHE: first[CACHE]}, max_new_tokens=3, **options)
    assert torch.equal(second.sequences, whole.sequences)
    embeddings = model.get_input_embeddings()(ids)
    assert torch.equal(
        model.generate(inputs_embeds=embeddings, max_new_tokens=6, **options).sequences, whole.sequences[:, 5:]
    )


# Attention implementations


# Flex attention runs uncompiled: building its kernel with torch.compile takes a while and needs a compiler. On a CPU
# torch knows no gradients of it.
@pytest.fixture
def uncompiled():
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize("side", [None, "right", "left"])
def test_flex_attention_equals_sdpa(side, uncompiled):
    batch = {"input_ids": random_ids(3, 12)} if side is None else padded_batch(side)[0]
    seen = torch.ones(3, 12).bool() if side is None else mask_of(side).bool()
    flex, sdpa = (tiny_lm(attention)(**batch).logits[seen] for attention in ("flex_attention", "sdpa"))
    assert_close(flex, sdpa, **CLOSE)


def test_flex_attention_keeps_packed_sequences_apart_and_decodes(uncompiled):
    flex, sdpa, ids = tiny_lm("flex_attention"), tiny_lm("sdpa"), random_ids(2, 9)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1], [0, 1, 0, 1, 2, 3, 4, 5, 6]])
    packed = flex(ids, position_ids=positions, use_cache=False).logits
    assert_close(packed, sdpa(ids, position_ids=positions, use_cache=False).logits, **CLOSE)
    assert torch.equal(generate(flex, ids)[0], generate(sdpa, ids)[0])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, within torch
def test_compiled_flex_attention_equals_sdpa_on_packed_rows():
    flex, sdpa, ids = tiny_lm("flex_attention"), tiny_lm("sdpa"), random_ids(2, 13)
    positions = torch.cat([torch.arange(7), torch.arange(6)]).expand(2, -1)
    with torch.no_grad():
        found, expected = (model(ids, position_ids=positions, use_cache=False).logits for model in (flex, sdpa))
    assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("form", ["plain", "padded", "packed"])
def test_flash_attention_receives_its_kernels_inputs(form, monkeypatch):
    calls = []

    def flash(module, query, key, value, attention_mask, **kwargs):
        calls.append((module, query, attention_mask, kwargs))
        return query.transpose(1, 2), None

    model, ids = tiny_lm(), random_ids(2, 6)
    model.config._attn_implementation_internal = "flash_attention_2"  # the setter would look for the package
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", flash)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [1] * 6])
    options = {"plain": {}, "padded": {"attention_mask": mask}, "packed": {"position_ids": positions}}[form]
    model(ids, use_cache=False, **options)
    assert len(calls) == len(model.transformer.h)
    for module, query, attention_mask, kwargs in calls:
        assert module.is_causal and kwargs["scaling"] == module.scaling and kwargs["dropout"] == 0.0
        assert query.shape == (2, module.config.num_attention_heads, 6, module.head_dim)
        # Padding as a mask of two axes; sequences packed in a row by their positions.
        assert attention_mask is None if form != "padded" else torch.equal(attention_mask.bool(), mask.bool())
        expected = {
            "plain": torch.arange(6)[None],
            "padded": torch.tensor([[0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]]),
            "packed": positions,
        }[form]
        assert torch.equal(kwargs["position_ids"], expected)


@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash-attn is installed")
def test_flash_attention_without_its_package_is_the_librarys_clear_error():
    with pytest.raises((ImportError, ValueError), match="(?i)flash.?attention|flash_attn"):
        GPT1ForCausalLM._from_config(tiny_config(), attn_implementation="flash_attention_2")


# Parallel plans


@CLASSES
def test_every_entry_of_the_parallel_plans_names_a_module(model_class):
    model = model_class(tiny_config())
    modules = [name for name, _ in model.named_modules()]
    plans = {"tp": model.tp_plan, "fsdp": model.fsdp_plan, "pp": model.pp_plan}
    for kind, plan in plans.items():
        assert plan, kind
        for entry in plan:
            pattern = re.escape(entry).replace(r"\*", r"\d+")
            assert any(re.fullmatch(pattern, name) for name in modules), (kind, entry)
    # Each projection is split, and every block is a separate unit.
    split = {entry.rsplit(".", 1)[-1] for entry in plans["tp"]}
    assert split >= {name.rsplit(".", 1)[-1] for name in modules if name.endswith("_proj")}
    assert any(entry.endswith("h.*") for entry in plans["fsdp"])
    assert any(entry.rsplit(".", 1)[-1] == "h" for entry in plans["pp"])


# Training


@EVERY_HEAD
def test_checkpointed_gradients_are_those_of_every_head(head):
    dropout = {"embd_pdrop": 0.1, "attn_pdrop": 0.1, "resid_pdrop": 0.1, "num_labels": 3}
    model, batch = randomize(head(tiny_config(**dropout))).train(), batch_for(head)
    calls = []
    model.transformer.h[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    results = []
    for enabled in (False, True):
        if enabled:
            model.activation_checkpointing_enable()
        model.zero_grad()
        calls.clear()
        torch.manual_seed(0)
        model(**batch, use_cache=False).loss.backward()
        assert len(calls) == 1 + enabled
        results.append({name: gradient.clone() for name, gradient in gradients(model).items()})
        if head is GPT1ForMultipleChoice:  # the softmax over the answers ignores a constant added to each
            assert results[-1].pop("classifier.bias").abs() < 1e-6
    assert_same_gradients(*results)


@CLASSES
def test_every_class_takes_embeddings_in_place_of_ids(model_class):
    model, batch = randomize(model_class(tiny_config(num_labels=3))), batch_for(model_class)
    batch.pop("labels", None)
    expected = model(**batch)[0]
    batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("input_ids"))
    assert_close(model(**batch)[0], expected, **CLOSE)


@EVERY_HEAD
def test_every_head_trains_on_resized_embeddings(head):
    model, batch = randomize(head(tiny_config(num_labels=3))), batch_for(head)
    with torch.no_grad():
        before = {name: value for name, value in model(**batch).items() if name in ("task_loss", "logits")}
    model.resize_token_embeddings(VOCAB + 3, mean_resizing=False)
    outputs = model(**batch)
    if head is GPT1ForCausalLM:
        outputs.logits = outputs.logits[..., :VOCAB]
        assert model.lm_head.weight is model.get_input_embeddings().weight
    for name, value in before.items():
        assert_close(outputs[name], value, **CLOSE)
    batch["input_ids"] = torch.full_like(batch["input_ids"], VOCAB + 2)
    model(**batch).loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient.shape == (VOCAB + 3, HIDDEN) and gradient[VOCAB + 2].abs().sum() > 0


# torch.compile


@pytest.mark.slow
def test_a_training_step_is_one_graph_for_torch_compile():
    model, ids = tiny_lm().train(), random_ids(2, 8)
    for skip_logits in (False, True):
        results = []
        for step in (model, torch.compile(model, fullgraph=True)):
            model.zero_grad()
            loss = step(ids, labels=ids, use_cache=False, skip_logits=skip_logits).loss
            loss.backward()
            results.append((loss.detach(), {name: gradient.clone() for name, gradient in gradients(model).items()}))
        assert_close(results[0][0], results[1][0], **CLOSE)
        assert_same_gradients(results[1][1], results[0][1])


@pytest.mark.slow
def test_decoding_with_a_static_cache_is_one_graph_for_torch_compile():
    model, ids = tiny_lm(), random_ids(2, 5)
    expected = generate(model, ids)[0]
    model.forward = torch.compile(model.forward, backend="aot_eager", fullgraph=True)
    assert torch.equal(generate(model, ids, cache_implementation="static")[0], expected)
