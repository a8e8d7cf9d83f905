"""The models compared with transformers' OpenAIGPT, with themselves computed in another way, and with losses and
formulas written out by hand."""

import copy
import math

import pytest
import torch
from helpers.models import (
    ATTENTIONS,
    CLOSE,
    HEADS,
    HIDDEN,
    LAYERS,
    LENGTHS,
    NO_DROPOUT,
    POSITIONS,
    VOCAB,
    assert_cache_keeps_generation,
    assert_same_gradients,
    generate,
    gradients,
    in_our_layout,
    labels_of,
    padded_batch,
    positions_of,
    random_ids,
    randomize,
    tiny_config,
    tiny_lm,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import DynamicCache, OpenAIGPTConfig, OpenAIGPTLMHeadModel, StaticCache

from gpt1_hf import GPT1ForCausalLM, GPT1ForSequenceClassification, GPT1Model
from gpt1_hf.modeling_gpt1_heads import CACHE


@pytest.fixture(scope="module")
def _reference() -> OpenAIGPTLMHeadModel:
    sizes = {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": POSITIONS}
    config = OpenAIGPTConfig(**sizes, **NO_DROPOUT, attn_implementation="eager")
    return randomize(OpenAIGPTLMHeadModel(config))


@pytest.fixture
def reference(_reference) -> OpenAIGPTLMHeadModel:
    _reference.zero_grad()
    return _reference


@pytest.fixture(scope="module")
def lm_folder(_reference, tmp_path_factory):
    """OpenAIGPT's language model, keys with the prefix `transformer.`."""
    folder = tmp_path_factory.mktemp("openai_lm")
    _reference.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base_folder(_reference, tmp_path_factory):
    """OpenAIGPT without a head, keys without prefix, as in the folder on the Hub."""
    folder = tmp_path_factory.mktemp("openai_base")
    _reference.transformer.save_pretrained(folder)
    return folder


# Parity with OpenAIGPT


@pytest.mark.parametrize("model_class", [GPT1Model, GPT1ForCausalLM])
@pytest.mark.parametrize("folder_name", ["lm_folder", "base_folder"])
def test_every_weight_of_an_openai_folder_is_loaded(model_class, folder_name, reference, request):
    folder = request.getfixturevalue(folder_name)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert all(name.startswith("transformer.") == (folder_name == "lm_folder") for name in file.keys())
    model, info = model_class.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    theirs = reference if model_class is GPT1ForCausalLM else reference.transformer
    expected = in_our_layout(dict(theirs.named_parameters()))
    ours = dict(model.named_parameters())
    assert ours.keys() == expected.keys()
    for name in expected:
        assert torch.equal(ours[name], expected[name]), name


def test_mask_buffers_of_old_checkpoints_are_ignored(base_folder, tmp_path):
    weights = load_file(base_folder / "model.safetensors")
    for layer in range(LAYERS):
        weights[f"h.{layer}.attn.bias"] = torch.ones(1, 1, POSITIONS, POSITIONS).tril()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((base_folder / "config.json").read_text())
    model, info = GPT1ForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    expected = GPT1ForCausalLM.from_pretrained(base_folder)
    for name, weight in expected.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])


@ATTENTIONS
@pytest.mark.parametrize("with_positions", [False, True])
@pytest.mark.parametrize("side", [None, "right", "left"])
@pytest.mark.parametrize("folder_name", ["lm_folder", "base_folder"])
def test_logits_loss_and_gradients_equal_openai_gpt(attention, with_positions, side, folder_name, reference, request):
    batch, real = padded_batch(side)
    batch["labels"] = labels_of(batch["input_ids"], real)
    positions = positions_of(real)  # ours by default
    if with_positions:
        batch["position_ids"] = positions
    model = GPT1ForCausalLM.from_pretrained(request.getfixturevalue(folder_name), attn_implementation=attention).eval()
    assert model.config._attn_implementation == attention
    ours, theirs = model(**batch), reference(**{**batch, "position_ids": positions})
    assert_close(ours.logits[real], theirs.logits[real], **CLOSE)
    assert_close(ours.loss, theirs.loss, **CLOSE)
    ours.loss.backward()
    theirs.loss.backward()
    assert_same_gradients(gradients(model), in_our_layout(gradients(reference)))


@ATTENTIONS
@pytest.mark.parametrize("form", ["token_type_ids", "inputs_embeds", "both"])
def test_token_types_and_input_embeddings_are_read_as_by_openai_gpt(attention, form, reference, lm_folder):
    batch, real = padded_batch("right")
    ids = batch["input_ids"]
    labels = labels_of(ids, real)
    if form != "inputs_embeds":
        batch["token_type_ids"] = random_ids(*ids.shape, seed=1)
    embeds = [
        torch.randn(*ids.shape, HIDDEN, generator=torch.Generator().manual_seed(2)).requires_grad_() for _ in "ab"
    ]
    if form != "token_type_ids":
        del batch["input_ids"]
    model = GPT1ForCausalLM.from_pretrained(lm_folder, attn_implementation=attention).eval()
    outputs = []
    for net, own_embeds in zip((model, reference), embeds, strict=True):
        extra = {} if form == "token_type_ids" else {"inputs_embeds": own_embeds}
        outputs.append(net(**batch, **extra, labels=labels))
        outputs[-1].loss.backward()
    assert_close(outputs[0].logits[real], outputs[1].logits[real], **CLOSE)
    assert_close(outputs[0].loss, outputs[1].loss, **CLOSE)
    assert_same_gradients(gradients(model), in_our_layout(gradients(reference)))
    if form != "token_type_ids":
        assert_close(embeds[0].grad, embeds[1].grad, **CLOSE)


@ATTENTIONS
@pytest.mark.parametrize("folder_name", ["lm_folder", "base_folder"])
@pytest.mark.parametrize("side", [None, "right", "left"])
def test_base_model_equals_openai_gpt(attention, folder_name, side, reference, request):
    batch, real = padded_batch(side)
    model = GPT1Model.from_pretrained(request.getfixturevalue(folder_name), attn_implementation=attention).eval()
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(1))
    theirs = reference.transformer(**batch, position_ids=positions_of(real))
    states = [model(**batch).last_hidden_state, theirs.last_hidden_state]
    assert_close(states[0][real], states[1][real], **CLOSE)
    for state in states:
        (state[real] @ direction).mean().backward()
    assert_same_gradients(gradients(model), in_our_layout(gradients(reference.transformer)))


def test_hidden_states_and_attentions_are_those_of_openai_gpt(reference, lm_folder):
    batch, _ = padded_batch(None)
    asked = {"output_hidden_states": True, "output_attentions": True}
    model = GPT1ForCausalLM.from_pretrained(lm_folder, attn_implementation="eager").eval()
    ours, theirs = model(**batch, **asked), reference(**batch, **asked)
    rows, length = batch["input_ids"].shape
    assert len(ours.hidden_states) == len(theirs.hidden_states) == LAYERS + 1
    assert len(ours.attentions) == len(theirs.attentions) == LAYERS
    for mine, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert mine.shape == (rows, length, HIDDEN)
        assert_close(mine, other, **CLOSE)
    for mine, other in zip(ours.attentions, theirs.attentions, strict=True):
        assert mine.shape == (rows, HEADS, length, length)
        assert_close(mine, other, **CLOSE)


def test_hidden_states_and_attentions_are_returned_only_on_request():
    outputs = tiny_lm("eager")(random_ids(2, 5))
    assert outputs.hidden_states is None and outputs.attentions is None
    outputs = tiny_lm("sdpa")(random_ids(2, 5), output_hidden_states=True)
    assert len(outputs.hidden_states) == LAYERS + 1


def test_heads_pass_on_hidden_states_and_attentions():
    model = GPT1ForSequenceClassification._from_config(tiny_config(), attn_implementation="eager").eval()
    outputs = model(random_ids(2, 5), output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == LAYERS + 1
    assert [tuple(attention.shape) for attention in outputs.attentions] == [(2, HEADS, 5, 5)] * LAYERS


# Language-model loss


def test_labels_of_minus_100_do_not_count():
    model, ids = tiny_lm(), random_ids(2, 8)
    labels = ids.clone()
    labels[0, :5] = -100
    labels[1, 6] = -100
    outputs = model(ids, labels=labels)
    losses = []
    for row in range(2):
        for position in range(1, 8):
            if labels[row, position] != -100:
                scores = outputs.logits[row, position - 1].log_softmax(-1)
                losses.append(-scores[ids[row, position]])
    assert len(losses) == 3 + 6
    assert_close(outputs.loss, torch.stack(losses).mean(), **CLOSE)


def test_shift_labels_replace_labels():
    model, ids = tiny_lm(), random_ids(2, 8)
    labels, targets = ids.clone(), random_ids(2, 8, seed=1)
    targets[0, 3] = -100
    outputs = model(ids, labels=labels, shift_labels=targets)
    expected = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), targets.flatten())
    assert_close(outputs.loss, expected, **CLOSE)
    assert (outputs.loss - model(ids, labels=labels).loss).abs() > 1e-2


@pytest.mark.parametrize("kind", [int, torch.tensor])
def test_num_items_in_batch_is_what_the_language_model_loss_is_divided_by(kind):
    model, ids = tiny_lm(), random_ids(2, 8)
    labels = ids.clone()
    labels[0, :5] = -100
    plain = model(ids, labels=labels).loss
    assert_close(model(ids, labels=labels, num_items_in_batch=kind(50)).loss, plain * 10 / 50, **CLOSE)
    assert model.loss_type == "ForCausalLM"  # Trainer counts the targets by it


def test_logits_to_keep_are_the_last_ones():
    model, ids = tiny_lm(), random_ids(2, 8)
    full = model(ids).logits
    assert_close(model(ids, logits_to_keep=3).logits, full[:, -3:], **CLOSE)
    assert_close(model(ids, logits_to_keep=torch.tensor([1, 4])).logits, full[:, [1, 4]], **CLOSE)


# Key/value cache


@ATTENTIONS
@pytest.mark.parametrize("kind", ["learned", "sinusoidal", "none"])
def test_generation_with_a_cache_equals_generation_without(attention, kind):
    assert_cache_keeps_generation(tiny_lm(attention, position_embedding_type=kind))


@ATTENTIONS
@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"cache_implementation": "static"}])
def test_left_padded_generation_equals_rows_on_their_own(attention, options):
    model = tiny_lm(attention)
    batch, real = padded_batch("left")
    sequences, logits = generate(model, batch["input_ids"], attention_mask=batch["attention_mask"], **options)
    for row, length in enumerate(LENGTHS):
        alone, alone_logits = generate(model, batch["input_ids"][row : row + 1, -length:])
        assert torch.equal(sequences[row, -length - 8 :], alone[0])
        assert_close(logits[row], alone_logits[0], **CLOSE)
    assert len({tuple(row) for row in sequences[:, -8:].tolist()}) > 1


@ATTENTIONS
@pytest.mark.parametrize("steps", [[1] * 9, [4, 1, 3, 1]])
@pytest.mark.parametrize("cache_kind", ["dynamic", "static"])
def test_forward_in_steps_equals_one_forward(attention, steps, cache_kind):
    model, ids = tiny_lm(attention), random_ids(2, 9)
    cache = DynamicCache() if cache_kind == "dynamic" else StaticCache(config=model.config, max_cache_len=POSITIONS)
    parts, done = [], 0
    for step in steps:
        outputs = model(ids[:, done : done + step], cache=cache, use_cache=True)
        assert getattr(outputs, CACHE) is cache
        parts.append(outputs.logits)
        done += step
    assert_close(torch.cat(parts, dim=1), model(ids).logits, **CLOSE)


@ATTENTIONS
def test_left_padded_forward_in_steps_equals_one_forward(attention):
    model = tiny_lm(attention)
    batch, real = padded_batch("left")
    ids, mask, positions = batch["input_ids"], batch["attention_mask"], positions_of(real)
    full = model(ids, attention_mask=mask, position_ids=positions).logits
    cache, parts = DynamicCache(), []
    for end in range(8, max(LENGTHS) + 1):
        new = slice(0 if end == 8 else end - 1, end)
        parts.append(
            model(ids[:, new], attention_mask=mask[:, :end], position_ids=positions[:, new], cache=cache).logits
        )
    assert_close(torch.cat(parts, dim=1)[real], full[real], **CLOSE)


# Packed rows


@ATTENTIONS
def test_packed_rows_equal_separate_sequences(attention):
    model = tiny_lm(attention)
    rows = [[4, 1, 7], [6, 6], [12]]  # lengths of the sequences in each row
    positions = torch.tensor([[i for length in row for i in range(length)] for row in rows])
    ids = random_ids(*positions.shape)
    labels = ids.masked_fill(positions == 0, -100)
    packed = model(ids, position_ids=positions, labels=labels)
    packed.loss.backward()
    packed_gradients = {name: gradient.clone() for name, gradient in gradients(model).items()}
    model.zero_grad()

    total = 0.0
    n_targets = int((labels[:, 1:] != -100).sum())
    for row, lengths in enumerate(rows):
        start = 0
        for length in lengths:
            own = slice(start, start + length)
            alone = model(ids[row : row + 1, own], labels=ids[row : row + 1, own], num_items_in_batch=n_targets)
            assert_close(packed.logits[row, own], alone.logits[0], **CLOSE)
            total = total + alone.loss
            start += length
    assert_close(packed.loss, total, **CLOSE)
    total.backward()
    assert_same_gradients(packed_gradients, gradients(model))


# Positions


@pytest.mark.parametrize("kind", ["learned", "sinusoidal", "none"])
@pytest.mark.parametrize("given", [False, True])
def test_position_embeddings_are_those_of_the_formula(kind, given):
    model, ids = tiny_lm(position_embedding_type=kind, position_initializer_range=0.3), random_ids(2, 7)
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 2, 3, 23] if given else [0, 1, 2, 3, 4, 5, 6]])
    base = model.transformer
    assert any("positions_embed" in name for name in model.state_dict()) == (kind == "learned")
    states = model(ids, position_ids=positions if given else None, output_hidden_states=True).hidden_states[0]
    for row in range(2):
        for step in range(7):
            position = int(positions[row, step])
            expected = base.tokens_embed.weight[ids[row, step]]
            if kind == "learned":
                expected = expected + base.positions_embed.weight[position]
            if kind == "sinusoidal":
                angles = [position / 10000 ** (2 * (i // 2) / HIDDEN) for i in range(HIDDEN)]
                waves = [math.cos(angle) if i % 2 else math.sin(angle) for i, angle in enumerate(angles)]
                expected = expected + 0.3 * torch.tensor(waves)
            assert_close(states[row, step], expected, **CLOSE)


@pytest.mark.parametrize("model_class", [GPT1Model, GPT1ForCausalLM, GPT1ForSequenceClassification])
def test_too_many_learned_positions_are_refused_with_both_numbers(model_class):
    model = model_class(tiny_config()).eval()
    model(random_ids(1, POSITIONS))
    with pytest.raises(ValueError, match=rf"\b{POSITIONS + 3} positions\b.*\b{POSITIONS}\b"):
        model(random_ids(1, POSITIONS + 3))
    with pytest.raises(ValueError, match=rf"\b41 positions\b.*\b{POSITIONS}\b"):
        model(random_ids(1, 2), position_ids=torch.tensor([[0, 40]]))
    cache = getattr(model(random_ids(1, POSITIONS)), CACHE)
    with pytest.raises(ValueError, match=rf"\b{POSITIONS + 1} positions\b.*\b{POSITIONS}\b"):
        model(random_ids(1, 1), cache=cache)


def test_generation_beyond_the_context_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=rf"max_length {POSITIONS + 6} .*max_position_embeddings {POSITIONS}\b"):
        generate(tiny_lm(), random_ids(1, POSITIONS - 2))


@pytest.mark.parametrize("kind", ["sinusoidal", "none"])
def test_positions_without_a_table_have_no_limit(kind):
    model = tiny_lm(position_embedding_type=kind)
    assert model(random_ids(1, POSITIONS + 3)).logits.isfinite().all()


# Training


def test_gradient_checkpointing_gives_the_same_gradients():
    dropout = {"embd_pdrop": 0.1, "attn_pdrop": 0.1, "resid_pdrop": 0.1}
    model = tiny_lm(**dropout).train()
    ids = random_ids(2, 8)
    results = []
    for enabled in (False, True):
        if enabled:
            model.activation_checkpointing_enable()
            assert all(block.gradient_checkpointing for block in model.transformer.h)
        model.zero_grad()
        torch.manual_seed(0)
        model(ids, labels=ids, use_cache=False).loss.backward()
        results.append({name: gradient.clone() for name, gradient in gradients(model).items()})
    assert_same_gradients(*results)


def test_gradient_checkpointing_recomputes_the_blocks():
    model, ids = tiny_lm().train(), random_ids(2, 8)
    calls = []
    model.transformer.h[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    model.activation_checkpointing_enable()
    model(ids, labels=ids, use_cache=False).loss.backward()
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["embd_pdrop", "attn_pdrop", "resid_pdrop"])
@ATTENTIONS
def test_each_dropout_acts_in_training_only(name, attention):
    model, ids = tiny_lm(attention, **{name: 0.5}), random_ids(2, 8)
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert_close(model(ids).logits, tiny_lm(attention)(ids).logits, **CLOSE)
    model.train()
    assert not torch.allclose(model(ids).logits, model(ids).logits, atol=1e-2)


def test_residual_dropout_acts_on_attention_and_feed_forward_alike():
    block = tiny_lm(resid_pdrop=1.0).train().transformer.h[0]
    states = torch.randn(2, 5, HIDDEN)
    assert_close(block(states), block.ln_2(block.ln_1(states)))
    assert not torch.allclose(block.eval()(states), block.ln_2(block.ln_1(states)), atol=1e-2)


@pytest.mark.parametrize("std", [0.02, 0.3, 0.0])
def test_weights_are_drawn_with_the_initializer_range(std):
    torch.manual_seed(0)
    sizes = {"vocab_size": 200, "hidden_size": 64, "max_position_embeddings": 64, "num_labels": 64}
    for model_class in (GPT1ForCausalLM, GPT1ForSequenceClassification):
        model = model_class(tiny_config(**sizes, initializer_range=std))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                assert (parameter == 0).all(), name
            elif ".ln_" in name:
                assert (parameter == 1).all(), name
            elif std == 0.0:
                assert (parameter == 0).all(), name
            else:
                assert parameter.std().item() == pytest.approx(std, rel=0.06), name
                assert abs(parameter.mean().item()) < 0.08 * std, name


def test_a_head_that_a_checkpoint_lacks_is_drawn_like_the_others(tmp_path):
    tiny_lm().save_pretrained(tmp_path)
    torch.manual_seed(0)
    model, info = GPT1ForSequenceClassification.from_pretrained(tmp_path, num_labels=200, output_loading_info=True)
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.06)
    assert (model.classifier.bias == 0).all()


@pytest.mark.parametrize("model_class", [GPT1Model, GPT1ForCausalLM, GPT1ForSequenceClassification])
def test_resized_embeddings_keep_old_rows_and_draw_new_ones(model_class):
    torch.manual_seed(0)
    model = randomize(model_class(tiny_config()))
    old = model.get_input_embeddings().weight.detach().clone()
    before = model(random_ids(2, 6))[0] if model_class is not GPT1ForCausalLM else model(random_ids(2, 6)).logits
    model.resize_token_embeddings(VOCAB + 300, mean_resizing=False)
    weight = model.get_input_embeddings().weight
    assert weight.shape == (VOCAB + 300, HIDDEN) and model.config.vocab_size == VOCAB + 300
    assert torch.equal(weight[:VOCAB], old)
    new = weight[VOCAB:]
    assert new.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(new.mean().item()) < 1e-3
    assert new.std(dim=0).min() > 0.01 and new.std(dim=1).min() > 0.01
    after = model(random_ids(2, 6))[0]
    if model_class is GPT1ForCausalLM:
        assert model.lm_head.weight is weight
        after = after[..., :VOCAB]
    assert_close(after, before, **CLOSE)


# Saving


@pytest.mark.parametrize("model_class", [GPT1Model, GPT1ForCausalLM, GPT1ForSequenceClassification])
@pytest.mark.parametrize("folder_name", ["lm_folder", "base_folder"])
def test_models_are_saved_in_the_linear_layout_wherever_they_came_from(model_class, folder_name, request, tmp_path):
    model = model_class.from_pretrained(request.getfixturevalue(folder_name))
    model.save_pretrained(tmp_path / "first")
    with safe_open(tmp_path / "first" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {name for name, _ in model.named_parameters()}
        assert any("attn.q_proj.weight" in name for name in file.keys())
    again, info = model_class.from_pretrained(tmp_path / "first", output_loading_info=True)
    assert not any(info.values()), info
    again.save_pretrained(tmp_path / "second")
    third = model_class.from_pretrained(tmp_path / "second")
    for copied in (again, third):
        assert copied.config.model_type == "gpt1"
        for name, tensor in model.state_dict().items():
            assert torch.equal(copied.state_dict()[name], tensor), name
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()


def test_a_new_model_is_saved_in_the_linear_layout(tmp_path):
    model = tiny_lm()
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == dict(model.named_parameters()).keys()


def test_the_language_model_head_stays_tied(lm_folder, tmp_path):
    model = GPT1ForCausalLM.from_pretrained(lm_folder)
    assert model.lm_head.weight is model.transformer.tokens_embed.weight
    model.save_pretrained(tmp_path)
    again = GPT1ForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.transformer.tokens_embed.weight


@pytest.mark.parametrize("kind", ["learned", "sinusoidal", "none"])
def test_bf16_models_are_saved_and_loaded_unchanged(kind, tmp_path):
    model = tiny_lm(position_embedding_type=kind).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    again = GPT1ForCausalLM.from_pretrained(tmp_path, dtype="auto").eval()
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    ids = random_ids(2, 8)
    outputs = again(ids, labels=ids)
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.loss.dtype == torch.float32
    assert torch.equal(outputs.logits, model(ids).logits)
    upcast = copy.deepcopy(again).float()
    assert upcast(ids, labels=ids).loss.item() == pytest.approx(outputs.loss.item(), rel=0.05)


def test_attention_can_be_switched_on_a_loaded_model():
    model, ids = tiny_lm("sdpa"), random_ids(2, 6)
    before = model(ids).logits
    model.set_attn_implementation("eager")
    outputs = model(ids, output_attentions=True)
    assert outputs.attentions[0] is not None
    assert_close(outputs.logits, before, **CLOSE)


@pytest.mark.slow
def test_the_model_is_one_graph_for_torch_compile():
    model, ids = tiny_lm(), random_ids(2, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_close(compiled(ids, labels=ids, use_cache=False).loss, model(ids, labels=ids).loss, **CLOSE)


def test_without_layers_a_token_is_predicted_from_the_one_before(config, tmp_path):
    """The ablation without transformer blocks: the embeddings and the tied softmax alone."""
    config.num_hidden_layers = 0
    model = GPT1ForCausalLM(config).eval()
    ids = torch.randint(config.vocab_size, (2, 8))
    logits = model(ids).logits
    weight, positions = model.transformer.tokens_embed.weight, model.transformer.positions_embed.weight
    assert torch.allclose(logits, (weight[ids] + positions[:8]) @ weight.T, atol=1e-5)
    model.save_pretrained(tmp_path)
    assert torch.equal(GPT1ForCausalLM.from_pretrained(tmp_path).eval()(ids).logits, logits)
    with_cache, without = (model.generate(ids, max_new_tokens=8, do_sample=False, use_cache=u) for u in (True, False))
    assert torch.equal(with_cache, without)
