"""Perplexity, compared with losses computed token by token; every token is scored once with any window."""

import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.modeling_outputs import CausalLMOutputWithPast

from gpt1_hf import GPT1ForCausalLM
from gpt1_hf.checkpoints.loading import open_causal_lm
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.perplexity import TextScore, perplexity, score_documents


WINDOW = 16


@pytest.fixture
def model(config) -> GPT1ForCausalLM:
    torch.manual_seed(0)
    return GPT1ForCausalLM(config).eval()


@pytest.fixture(scope="module")
def documents() -> list[tuple[np.ndarray, int]]:
    """Token ids and number of characters of documents that are shorter than, as long as, or longer than a window."""
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 160, n).astype(np.uint16), 3 * n) for n in (1, 40, 2, 16, 17, 5, 33)]


def nats_of(model, context, token: int) -> float:
    """Loss of one token after its context, in a batch of one."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([np.asarray(context).tolist()])).logits[0, -1]
    return -torch.log_softmax(logits.double(), -1)[token].item()


class UnigramModel:
    """Gives a token the same probability at every position, so the sum of losses shows which tokens were scored."""

    device = torch.device("cpu")

    def __init__(self, vocab_size: int):
        self.log_probs = torch.log_softmax(torch.randn(vocab_size, generator=torch.Generator().manual_seed(0)), -1)

    def eval(self):
        return self

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def forward(self, input_ids, attention_mask, use_cache):
        return CausalLMOutputWithPast(logits=self.log_probs.expand(*input_ids.shape, -1))


class TestByHand:
    def test_a_document_within_one_window(self, model):
        ids = np.array([5, 9, 2, 7, 7, 1])
        expected = sum(nats_of(model, ids[:i], ids[i]) for i in range(1, 6))
        score = score_documents(model, [(ids, 20)], WINDOW)
        assert score.nats == pytest.approx(expected, rel=1e-5)
        assert (score.n_tokens, score.n_chars, score.n_documents) == (5, 20, 1)
        assert score.perplexity == pytest.approx(math.exp(expected / 5), rel=1e-5)

    def test_it_equals_the_models_own_loss(self, model):
        ids = torch.randint(0, 160, (1, WINDOW))
        loss = model(input_ids=ids, labels=ids).loss.item()
        score = score_documents(model, [(ids[0].numpy(), 50)], WINDOW)
        assert math.log(score.perplexity) == pytest.approx(loss, rel=1e-5)

    def test_stride_1_gives_every_token_a_full_window(self, model, documents):
        expected = sum(
            nats_of(model, ids[max(0, i + 1 - WINDOW) : i], ids[i]) for ids, _ in documents for i in range(1, len(ids))
        )
        assert score_documents(model, documents, WINDOW, stride=1).nats == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("stride", [None, 15, 8, 5])
    def test_each_window_ends_where_the_next_ones_new_tokens_begin(self, model, documents, stride):
        step = stride or WINDOW - 1
        expected = 0.0
        for ids, _ in documents:
            for i in range(1, len(ids)):
                end = min(1 + step * ((i - 1) // step + 1), len(ids))  # of the window that scores token i
                expected += nats_of(model, ids[max(0, end - WINDOW) : i], ids[i])
        score = score_documents(model, documents, WINDOW, stride)
        assert score.nats == pytest.approx(expected, rel=1e-5)


class TestEveryTokenOnce:
    @pytest.mark.parametrize("batch_size", [1, 3, 100])
    @pytest.mark.parametrize("stride", [None, 1, 2, 7, 14, 15])
    @pytest.mark.parametrize("window", [16, 20])
    def test_all_but_the_first_token_of_each_document_is_scored(self, documents, window, stride, batch_size):
        model = UnigramModel(160)
        score = score_documents(model, documents, window, stride, batch_size)
        expected = -sum(model.log_probs[ids[1:].astype(np.int64)].double().sum().item() for ids, _ in documents)
        assert score.n_tokens == sum(len(ids) - 1 for ids, _ in documents)
        assert score.nats == pytest.approx(expected, rel=1e-5)

    def test_the_smallest_window_is_one_token_of_context(self, model, documents):
        expected = sum(nats_of(model, ids[i - 1 : i], ids[i]) for ids, _ in documents for i in range(1, len(ids)))
        assert score_documents(model, documents, window=2).nats == pytest.approx(expected, rel=1e-5)

    def test_a_smaller_stride_changes_the_context_only(self, model, documents):
        wide, narrow = score_documents(model, documents, WINDOW), score_documents(model, documents, WINDOW, stride=4)
        assert (wide.n_tokens, wide.n_chars, wide.n_documents) == (narrow.n_tokens, narrow.n_chars, narrow.n_documents)
        assert wide.nats != pytest.approx(narrow.nats, rel=1e-4)
        short = [(ids, n) for ids, n in documents if len(ids) <= WINDOW]
        one_window, several = score_documents(model, short, WINDOW), score_documents(model, short, WINDOW, stride=4)
        assert one_window.nats == pytest.approx(several.nats, rel=1e-5)

    def test_no_batch_exceeds_batch_size(self, documents):
        shapes = []

        class Recording(UnigramModel):
            def forward(self, input_ids, attention_mask, use_cache):
                shapes.append(input_ids.shape)
                return super().forward(input_ids, attention_mask, use_cache)

        for stride in (None, 1, 6):
            score_documents(Recording(160), documents, WINDOW, stride, batch_size=2)
        assert max(rows for rows, _ in shapes) == 2
        assert max(length for _, length in shapes) == WINDOW


class TestIndependence:
    @pytest.mark.parametrize("batch_size", [2, 3, 7, 64])
    @pytest.mark.parametrize("stride", [None, 5])
    def test_the_batch_size_does_not_matter(self, model, documents, stride, batch_size):
        one = score_documents(model, documents, WINDOW, stride, batch_size=1)
        several = score_documents(model, documents, WINDOW, stride, batch_size=batch_size)
        assert several.nats == pytest.approx(one.nats, rel=1e-5)
        assert (several.n_tokens, several.n_chars) == (one.n_tokens, one.n_chars)

    def test_nothing_is_carried_over_between_documents(self, model, documents):
        alone = [score_documents(model, [document], WINDOW) for document in documents if len(document[0]) > 1]
        together = score_documents(model, documents, WINDOW)
        assert together.nats == pytest.approx(sum(score.nats for score in alone), rel=1e-5)

    def test_documents_may_come_from_a_generator(self, model, documents):
        expected = score_documents(model, documents, WINDOW).nats
        assert score_documents(model, (d for d in documents), WINDOW).nats == expected

    def test_dropout_is_off(self, config, documents):
        config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = 0.5
        model = GPT1ForCausalLM(config).train()
        assert score_documents(model, documents, WINDOW) == score_documents(model, documents, WINDOW)


class TestTextScore:
    def test_perplexity_is_exp_of_the_mean_loss(self):
        assert TextScore(nats=6.0, n_tokens=3, n_chars=10, n_documents=1).perplexity == pytest.approx(math.exp(2))

    def test_bits_per_character_count_every_character(self):
        score = TextScore(nats=6.0, n_tokens=3, n_chars=10, n_documents=1)
        assert score.bits_per_character == pytest.approx(6.0 / math.log(2) / 10)
        assert score.bits_per_character == pytest.approx(math.log2(score.perplexity) * 3 / 10)

    def test_a_diverged_model_is_an_error(self):
        assert perplexity(700.0) == pytest.approx(math.exp(700.0))
        with pytest.raises(FloatingPointError, match="is 800 nats per token, .* has diverged, so lower learning_rate"):
            perplexity(800.0)

    def test_a_uniform_model_has_the_vocabulary_as_perplexity(self, documents):
        model = UnigramModel(160)
        model.log_probs = torch.full((160,), -math.log(160))
        score = score_documents(model, documents, WINDOW)
        assert score.perplexity == pytest.approx(160, rel=1e-4)
        n_tokens, n_chars = sum(len(ids) - 1 for ids, _ in documents), sum(n for _, n in documents)
        assert score.bits_per_character == pytest.approx(math.log2(160) * n_tokens / n_chars, rel=1e-4)


class TestErrors:
    @pytest.mark.parametrize("stride", [0, -1, 16, 100])
    def test_a_stride_that_does_not_fit_is_refused(self, model, documents, stride):
        with pytest.raises(GPT1Error, match=f"stride {stride} .* window of 16 .* 1 to 15"):
            score_documents(model, documents, WINDOW, stride)

    @pytest.mark.parametrize("ids", [None, [], [3]], ids=["no document", "no token", "one token"])
    def test_nothing_to_score_is_an_error(self, model, ids):
        documents = [] if ids is None else [(np.array(ids, dtype=np.uint16), 1)]
        with pytest.raises(GPT1Error, match="nothing to score"):
            score_documents(model, documents, WINDOW)


def test_missing_or_damaged_weights_are_not_scored(base_model, tmp_path):
    folder = shutil.copytree(base_model, tmp_path / "model")
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = next(key for key in weights if key.endswith("h.0.mlp.up_proj.weight"))
    save_file({key: value for key, value in weights.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(GPT1Error, match="lacks the weights .*up_proj"):
        open_causal_lm(str(folder))
    save_file({**weights, name: weights[name][:1].clone()}, file, metadata={"format": "pt"})
    with pytest.raises(GPT1Error, match="its configuration says"):
        open_causal_lm(str(folder))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(GPT1Error, match="cannot load the weights"):
        open_causal_lm(str(folder))
