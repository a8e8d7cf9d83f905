"""Token log-probabilities, compared with a softmax for each token, with any batches and padding."""

from functools import cache

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from gpt1_hf import GPT1Config, GPT1ForCausalLM, GPT1LSTMConfig, GPT1LSTMForCausalLM
from gpt1_hf.evaluation import log_probs as module
from gpt1_hf.evaluation.log_probs import choice_log_probs, token_log_probs


CONTEXT = 24
VOCAB = 50
SIZES = {"vocab_size": VOCAB, "hidden_size": 16, "max_position_embeddings": CONTEXT, "initializer_range": 0.4}
TRANSFORMER = {**SIZES, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS = {
    "learned": lambda: GPT1ForCausalLM(GPT1Config(**TRANSFORMER)),
    "sinusoidal": lambda: GPT1ForCausalLM(GPT1Config(**TRANSFORMER, position_embedding_type="sinusoidal")),
    "none": lambda: GPT1ForCausalLM(GPT1Config(**TRANSFORMER, position_embedding_type="none")),
    "lstm": lambda: GPT1LSTMForCausalLM(GPT1LSTMConfig(**SIZES, lstm_size=16)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=1, n_head=2, n_positions=CONTEXT, initializer_range=0.4)
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


@pytest.fixture(scope="module")
def sequences() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, VOCAB, n).tolist() for n in (2, CONTEXT, 7, 7, 1, 15, 3)]


@pytest.fixture(scope="module")
def questions() -> tuple[list[list[int]], list[list[list[int]]]]:
    """Contexts and choices of many lengths: one fills the model's context, one is a single token, one is empty."""
    rng = np.random.default_rng(1)
    sizes = [(20, (4, 1, 2)), (3, (1, 1)), (9, (2, 15, 0, 3)), (1, (5, 4)), (CONTEXT - 1, (1, 1, 1)), (9, (1, 6))]
    contexts = [rng.integers(0, VOCAB, n).tolist() for n, _ in sizes]
    return contexts, [[rng.integers(0, VOCAB, n).tolist() for n in ends] for _, ends in sizes]


@cache
def by_hand(model, ids: tuple[int, ...], start: int) -> list[float]:
    """Log-probabilities of the tokens from `start` on, with a separate forward pass and softmax for each."""
    scores = []
    for end in range(start, len(ids)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[:end]])).logits[0, -1].double()
        scores.append((logits[ids[end]] - logits.exp().sum().log()).item())
    return scores


class TestTokens:
    @pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
    def test_they_equal_those_computed_by_hand(self, model, sequences, batch_size):
        n_scored = [1, 23, 3, 6, 0, 0, 2]
        scores = token_log_probs(model, sequences, n_scored, batch_size)
        for ids, n, row in zip(sequences, n_scored, scores, strict=True):
            assert row.tolist() == pytest.approx(by_hand(model, tuple(ids), len(ids) - n), abs=1e-4)

    def test_nothing_to_score_needs_no_forward_pass(self):
        assert [row.tolist() for row in token_log_probs(Uniform(), [[1], [], [2, 3]], [0, 0, 0])] == [[], [], []]
        assert token_log_probs(Uniform(), [], []) == []

    def test_uniform_logits_give_minus_log_of_the_vocabulary(self):
        scores = token_log_probs(Uniform(), [[1, 2, 3], [4, 5]], [2, 1])
        assert np.concatenate(scores).tolist() == pytest.approx([-np.log(VOCAB)] * 3)

    def test_the_size_of_the_chunks_does_not_matter(self, model, sequences, monkeypatch):
        n_scored = [len(ids) - 1 for ids in sequences]
        whole = token_log_probs(model, sequences, n_scored)
        monkeypatch.setattr(module, "LOGITS_PER_CHUNK", 3 * VOCAB)
        for a, b in zip(whole, token_log_probs(model, sequences, n_scored), strict=True):
            assert a.tolist() == pytest.approx(b.tolist(), abs=1e-5)

    def test_logits_in_half_precision_are_normalized_in_fp32(self):
        torch.manual_seed(0)
        model = MODELS["learned"]().bfloat16().eval()
        ids = [3, 1, 4, 1, 5]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
        expected = torch.log_softmax(logits, -1)[range(4), ids[1:]]
        (row,) = token_log_probs(model, [ids], [4])
        assert row.dtype == np.float32
        assert row.tolist() == pytest.approx(expected.tolist(), abs=1e-5)

    def test_dropout_is_off(self, sequences):
        model = GPT1ForCausalLM(GPT1Config(**TRANSFORMER, embd_pdrop=0.5, resid_pdrop=0.5)).train()
        first, second = (token_log_probs(model, sequences[:2], [1, 5]) for _ in range(2))
        assert [row.tolist() for row in first] == [row.tolist() for row in second]

    def test_only_the_logits_that_are_needed_are_computed(self, sequences):
        model, kept = MODELS["learned"](), []
        model.lm_head.register_forward_hook(lambda module, inputs, output: kept.append(len(output)))
        token_log_probs(model, sequences[:2], [1, 2])
        assert kept == [3]


class TestChoices:
    @pytest.mark.parametrize("batch_size", [1, 2, 100])
    def test_they_equal_those_computed_by_hand(self, model, questions, batch_size):
        contexts, choices = questions
        scores = choice_log_probs(model, contexts, choices, batch_size)
        for context, row, found in zip(contexts, choices, scores, strict=True):
            assert len(found) == len(row)
            for choice, log_probs in zip(row, found, strict=True):
                expected = by_hand(model, (*context, *choice), len(context))
                assert log_probs.tolist() == pytest.approx(expected, abs=1e-4)

    def test_the_context_is_read_once(self, questions):
        model, sizes = MODELS["learned"](), []
        model.transformer.tokens_embed.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape))
        choice_log_probs(model, [[1] * 20], [[[2, 3], [4, 5, 6], [7, 8]]])
        assert [tuple(size[:2]) for size in sizes] == [(1, 20), (3, 2)]

    def test_choices_of_one_token_need_no_second_pass(self):
        model, sizes = MODELS["lstm"](), []
        model.model.tokens_embed.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape))
        choice_log_probs(model, [[1] * 5, [2] * 3], [[[2], [4]], [[7], [8]]])
        assert [tuple(size[:2]) for size in sizes] == [(2, 5)]

    def test_no_choices_give_no_scores(self, model):
        assert choice_log_probs(model, [[1, 2], [3]], [[], []]) == [[], []]
        (scores,) = choice_log_probs(model, [[1, 2]], [[[], []]])
        assert [row.tolist() for row in scores] == [[], []]


class Uniform:
    """Gives uniform logits, and does not take `logits_to_keep`."""

    device = torch.device("cpu")

    def eval(self):
        return self

    def __call__(self, **inputs):
        return self.forward(**inputs)

    def forward(self, input_ids, attention_mask, use_cache):
        return CausalLMOutputWithPast(logits=torch.zeros(*input_ids.shape, VOCAB))
