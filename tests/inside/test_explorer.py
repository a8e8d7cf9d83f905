"""The demo's view of a text, compared with forward passes by hand, also for unusual texts."""

import math

import pytest
import torch

from gpt1_hf import GPT1ForMultipleChoice, GPT1LSTMConfig, GPT1LSTMForCausalLM, GPT1Processor
from gpt1_hf.errors import GPT1Error
from gpt1_hf.inside.explorer import MAX_ANSWERS, MAX_CHARACTERS, Explorer
from gpt1_hf.inside.tokens import visible
from gpt1_hf.tasks import load_task


@pytest.fixture
def explorer(base_model) -> Explorer:
    return Explorer(base_model)


def log_probs(explorer: Explorer, ids: list[int]) -> torch.Tensor:
    """Log-probabilities `(seq, vocab)` of what follows each token."""
    with torch.no_grad():
        return explorer.scorer.model(torch.tensor([ids])).logits[0].log_softmax(-1)


def test_generated_tokens_have_the_models_own_probabilities(explorer):
    tokens = explorer.generate("The old captain", max_new_tokens=5, temperature=0.5, top_p=0.7, seed=3)
    prompt, new = tokens[:-5], tokens[-5:]
    tokenizer = explorer.scorer.tokenizer
    assert "".join(token.text for token in prompt) == "the old captain"
    assert all(token.probability is None and not token.alternatives for token in prompt)

    ids = tokenizer("The old captain")["input_ids"]
    assert len(ids) == len(prompt)
    for token in new:
        expected = log_probs(explorer, ids)[-1].exp()
        spelled = [
            number
            for piece, number in tokenizer.get_vocab().items()
            if piece.replace("</w>", "") == token.text.strip(" ")
        ]
        number = min(spelled, key=lambda number: abs(expected[number].item() - token.probability))
        assert token.probability == pytest.approx(expected[number].item(), rel=1e-4)
        best = expected.topk(3)
        assert [value for _, value in token.alternatives] == pytest.approx(best.values.tolist(), rel=1e-4)
        pieces = tokenizer.convert_ids_to_tokens(best.indices.tolist())
        assert [text for text, _ in token.alternatives] == [piece.replace("</w>", " ") for piece in pieces]
        ids.append(number)
    assert "".join(token.text for token in tokens) == tokenizer.decode(ids).removeprefix(" ")


def test_generation_equals_that_of_the_command(explorer):
    from gpt1_hf.inside.generation import generate

    settings = {"max_new_tokens": 8, "temperature": 1.2, "top_p": 0.9, "seed": 5}
    tokens = explorer.generate("The lady", **settings)
    (text,) = generate("The lady", explorer.model, **settings)
    assert "".join(token.text for token in tokens) == text
    greedy = explorer.generate("The lady", 4, temperature=0)
    assert all(token.probability == pytest.approx(token.alternatives[0][1]) for token in greedy[-4:])


@pytest.mark.parametrize("breaks", [("\n", "\n"), ("\n\n", "\n"), ("\r\n", "\n \n\n")])
def test_generated_text_has_the_prompts_line_breaks(breaks):
    from gpt1_hf.inside.generation import generate, with_line_breaks

    one, two = breaks
    (text,) = generate(f'"Well," she said.{one}"I don\'t know."{two}\'Tis true', "gpt1-tiny", max_new_tokens=4)
    one, two = ("\n" * found.replace("\r", "").count("\n") for found in breaks)
    assert text.startswith(f'"well," she said.{one}"i don\'t know."{two}\'tis true')
    assert with_line_breaks("a\nb\nc\nd", "A\nB\n\nC") == "a\nb\n\nc\n\nd"
    assert with_line_breaks("a\nb", "A") == "a\nb"


def test_reading_gives_every_token_but_the_first_a_probability(explorer):
    tokens = explorer.read("The old captain smiled.\nHe wept")
    ids = explorer.scorer.tokenizer("The old captain smiled.\nHe wept")["input_ids"]
    rows = log_probs(explorer, ids)
    assert len(tokens) == len(ids) and tokens[0].probability is None
    assert [token.probability for token in tokens[1:]] == pytest.approx(
        [rows[place, ids[place + 1]].exp().item() for place in range(len(ids) - 1)], rel=1e-4
    )
    # and the comparison of sentences is of their means
    comparison = explorer.compare_sentences(["The old captain smiled.", "smiled old The captain."])
    for text, score in zip(comparison.answers, comparison.scores, strict=True):
        read = [math.log(token.probability) for token in explorer.read(text)[1:]]
        assert score == pytest.approx(sum(read) / len(read), rel=1e-4)


def test_comparisons_use_the_zero_shot_heuristics(explorer):
    sentiment = explorer.sentiment("The house was")
    tokenizer = explorer.scorer.tokenizer
    context = tokenizer("The house was very")["input_ids"]
    for word, score in zip(("negative", "positive"), sentiment.scores, strict=True):
        ids = tokenizer(f"The house was very {word}")["input_ids"]
        rows = log_probs(explorer, ids)
        expected = sum(rows[place - 1, ids[place]].item() for place in range(len(context), len(ids)))
        assert score == pytest.approx(expected, rel=1e-4)
    assert sentiment.answers == ["negative", "positive"]
    assert sum(sentiment.shares) == pytest.approx(1)
    ratio = math.exp(sentiment.scores[0] - sentiment.scores[1])
    assert sentiment.shares[0] / sentiment.shares[1] == pytest.approx(ratio, rel=1e-6)
    assert sentiment.probabilities == pytest.approx([math.exp(score) for score in sentiment.scores])

    referents = explorer.referents("The captain wept because he was old.", " he ", ["the captain", "the lady"])
    after = "wept because the captain was old."
    ids, start = tokenizer(f"The captain {after}")["input_ids"], tokenizer("The captain wept because the captain")
    rows, n_before = log_probs(explorer, ids), len(start["input_ids"])
    expected = [rows[place - 1, ids[place]].item() for place in range(n_before, len(ids))]
    assert referents.scores[0] == pytest.approx(sum(expected) / len(expected), rel=1e-4)

    choice = explorer.choose("The captain wept.", "", ["old", "an old house"])
    ids, context = tokenizer("The captain wept. an old house")["input_ids"], tokenizer("The captain wept.")
    rows, n_before = log_probs(explorer, ids), len(context["input_ids"])
    expected = [rows[place - 1, ids[place]].item() for place in range(n_before, len(ids))]
    assert choice.scores[1] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert not choice.is_cut


@pytest.fixture
def choice_model(base_model, tokenizer, tmp_path) -> str:
    """Folder of a tiny multiple-choice model with its processor, not fine-tuned."""
    torch.manual_seed(1)
    processor = GPT1Processor(tokenizer, input_format="multiple_choice")
    model = GPT1ForMultipleChoice.from_pretrained(base_model, dtype="float32")
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    torch.nn.init.normal_(model.classifier.weight, std=5.0)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_fine_tuned_head_answers_in_place_of_the_language_model(base_model, choice_model):
    explorer = Explorer(base_model, choice_model)
    row = {"document": "The captain wept.", "question": "Why?", "choices": ["The house.", "The garden was dark.", "x"]}
    comparison = explorer.choose(**row)
    processor, model = explorer.chooser
    with torch.no_grad():
        logits = model(**processor([row], padding=True, return_tensors="pt")).logits[0]
    assert comparison.probabilities == pytest.approx(logits.softmax(-1).tolist(), rel=1e-4)
    assert comparison.shares == pytest.approx(comparison.probabilities)
    assert comparison.answers == row["choices"] and not comparison.is_cut
    assert explorer.choose("The captain wept. " * 40, "Why?", row["choices"]).is_cut
    with pytest.raises(GPT1Error, match="was not fine-tuned for multiple choice"):
        _ = Explorer(base_model, base_model).chooser


def test_tokenizing_shows_clean_up_pieces_and_ids(explorer):
    text = "“Don’t” \U0001f600\n unhesitatingly <unk>"
    cleaned, words = explorer.tokenize(text)
    tokenizer = explorer.scorer.tokenizer
    assert cleaned == '" do n\'t " \U0001f600 \n unhesitatingly < unk >'
    assert [word.text for word in words][:5] == ['"', "do", "n't", '"', "\U0001f600"]
    assert [word.text for word in words][5:] == ["\n", "unhesitatingly", "<", "unk", ">"]
    assert sum((word.ids for word in words), []) == tokenizer(text)["input_ids"]
    for word in words:
        assert tokenizer.convert_tokens_to_ids(word.pieces) == word.ids
        assert "<unk>" in word.pieces or "".join(word.pieces) == f"{word.text}</w>"


NOTHING = ["", "  \n ", None, "\x00", "\ufeff"]


@pytest.mark.parametrize("text", [*NOTHING, "x" * (MAX_CHARACTERS + 1)])
def test_unreadable_texts_are_refused(explorer, text):
    message = "is empty|has no character that|characters long"
    for call in (
        lambda: explorer.generate(text),
        lambda: explorer.read(text),
        lambda: explorer.compare_sentences(["a house", text]),
        lambda: explorer.sentiment(text),
        lambda: explorer.referents(text, "he", ["a", "b"]),
        lambda: explorer.referents("Then he spoke.", text, ["a", "b"]),
        lambda: explorer.referents("Then he spoke.", "he", ["a", text]),
        lambda: explorer.choose(text, "", ["a", "b"]),
        lambda: explorer.choose("The house.", "", ["a", text]),
        lambda: explorer.tokenize(text),
    ):
        with pytest.raises(GPT1Error, match=message):
            call()
    if text in NOTHING[:3]:
        assert explorer.choose("The house.", text, ["a", "b"]).scores  # a question is not needed


@pytest.mark.parametrize(
    "odd", ["\ud83d", "\U0001f600", "\u200b", "\u202eabc", "e\u0301" * 30, "<script>", "a\r\n\tb"]
)
def test_odd_characters_are_read(explorer, odd):
    assert len(explorer.generate(odd, 2)) > 2
    assert explorer.read(f"The {odd} house")
    assert explorer.compare_sentences([f"The {odd}", "The house"]).scores
    assert explorer.sentiment(odd).scores
    assert explorer.referents(f"{odd} he spoke", "he", [odd, "b"]).scores
    assert explorer.choose(odd, odd, [odd, "b"]).scores
    assert explorer.tokenize(odd)[1]


def test_texts_longer_than_the_context_are_cut_or_refused(explorer):
    long = "The old captain smiled. " * 40
    assert explorer.sentiment(long).is_cut
    assert explorer.choose(long, "Why?", ["a", "b"]).is_cut
    assert explorer.compare_sentences([long, "The house."]).is_cut
    with pytest.raises(GPT1Error, match="fills the model's context of 64"):
        explorer.generate(long)
    with pytest.raises(GPT1Error, match="the model reads 64"):
        explorer.read(long)
    assert sum(len(word.ids) for word in explorer.tokenize(long)[1]) > 64


def test_too_few_or_too_many_answers_and_a_missing_pronoun(explorer):
    for answers in ([], ["one"], ["one"] * (MAX_ANSWERS + 1)):
        with pytest.raises(GPT1Error, match=f"give 2 to {MAX_ANSWERS} choices"):
            explorer.choose("The house.", "", answers)
        with pytest.raises(GPT1Error, match="candidates"):
            explorer.referents("He spoke.", "he", answers)
    with pytest.raises(GPT1Error, match="'it' is not in the sentence"):
        explorer.referents("He spoke.", "it", ["a", "b"])
    with pytest.raises(GPT1Error, match="text 2 has no token to score"):
        explorer.compare_sentences(["The house", "a"])
    with pytest.raises(GPT1Error, match="no token to score"):
        explorer.referents("The lady saw him", "him", ["a", "b"])


def test_a_recurrent_model_is_shown_as_well(tokenizer, tmp_path):
    config = GPT1LSTMConfig(vocab_size=len(tokenizer), hidden_size=16, lstm_size=16)
    GPT1LSTMForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    explorer = Explorer(str(tmp_path))
    assert len(explorer.generate("The house", 3)) > 3
    assert explorer.choose("The house.", "", ["old", "dark garden"]).scores


def test_invisible_characters_are_shown_as_codes():
    assert visible("a\nb\u202ec\x00 é\U0001f600") == "a↵bU+202EcU+0000 é\U0001f600"


def test_the_accuracy_of_sentiment_is_counted_on_the_sample():
    n_rows, n_right, n_positive = Explorer().sample_sentiment
    labels = load_task("sst2").load("validation", sample=True)["label"][:]
    assert n_rows == len(labels) and 2 * sum(labels) == n_rows
    assert 40 < n_right < 60 and n_positive > 90  # a small model: "positive" whatever the text
