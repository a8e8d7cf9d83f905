"""transformers' own pipelines on this family, and ours for multiple choice: each against the model called by hand."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    pipeline,
)

from gpt1_hf import (
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1LSTMConfig,
    GPT1LSTMForMultipleChoice,
    GPT1Model,
    GPT1Processor,
    MultipleChoicePipeline,
)


@pytest.fixture
def saved(base_model, tokenizer, tmp_path):
    """Save a head on the base model, with a processor of a format or the plain tokenizer."""

    def save(model_class, input_format: str | None = None, **config) -> str:
        torch.manual_seed(0)
        reader = GPT1Processor(tokenizer, input_format=input_format) if input_format else tokenizer
        model = model_class.from_pretrained(base_model, dtype="float32", **config)
        if input_format:
            model.resize_token_embeddings(len(reader.tokenizer), mean_resizing=False)
        torch.nn.init.normal_(model.classifier.weight, std=5.0)
        model.save_pretrained(tmp_path)
        reader.save_pretrained(tmp_path)
        return str(tmp_path)

    return save


def test_text_generation(base_model):
    generator = pipeline("text-generation", model=base_model, device="cpu")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base_model), AutoTokenizer.from_pretrained(base_model)
    # The pipeline joins prompt and decoded new text, and decoding begins without a space: the prompt brings its own.
    prompts = ["the old captain ", "a dark night in the garden and "]
    greedy = GenerationConfig(max_new_tokens=5, do_sample=False, pad_token_id=0)
    for batch_size in (1, 2):
        tensors = generator(prompts, generation_config=greedy, batch_size=batch_size, return_tensors=True)
        texts = generator(prompts, generation_config=greedy, batch_size=batch_size)
        for prompt, (ids,), (text,) in zip(prompts, tensors, texts, strict=True):
            output = model.generate(**tokenizer(prompt, return_tensors="pt"), generation_config=greedy)[0].tolist()
            assert ids["generated_token_ids"][-len(output) :] == output  # after padding on the left
            assert text["generated_text"] == tokenizer.decode(output)
    new = generator(prompts[0], generation_config=greedy, return_full_text=False)[0]["generated_text"]
    assert generator(prompts[0], generation_config=greedy)[0]["generated_text"] == prompts[0] + new


def test_text_classification_of_one_text(saved):
    names = {0: "bad", 1: "good", 2: "neither"}
    folder = saved(GPT1ForSequenceClassification, "classification", num_labels=3, id2label=names)
    classifier = pipeline("text-classification", model=folder, device="cpu")
    texts = ["the house was kind and bright", "cruel", "the old lady wept."]
    # the processor's sequences, made by the tokenizer alone
    processor, model = AutoProcessor.from_pretrained(folder), classifier.model
    with torch.no_grad():
        rows = [model(**processor(text=[text], return_tensors="pt", padding=True)).logits[0] for text in texts]
    for batch_size in (1, 3):
        found = classifier(texts, top_k=None, batch_size=batch_size)
        for scores, logits in zip(found, rows, strict=True):
            by_name = {score["label"]: score["score"] for score in scores}
            assert [by_name[name] for name in names.values()] == pytest.approx(logits.softmax(-1).tolist(), rel=1e-4)


def test_text_classification_of_a_pair(saved):
    folder = saved(GPT1ForSequenceClassification, "entailment", num_labels=2)
    classifier = pipeline("text-classification", model=folder, device="cpu")
    processor, model = AutoProcessor.from_pretrained(folder), classifier.model
    premise, hypothesis = "the captain smiled upon her", "he never spoke"
    with torch.no_grad():
        row = processor(premise=[premise], hypothesis=[hypothesis], return_tensors="pt", padding=True)
        probabilities = model(**row).logits[0].softmax(-1)
    for top_k, count in ((1, 1), (None, 2)):
        found = classifier({"text": premise, "text_pair": hypothesis}, top_k=top_k)
        assert len(found) == count
        for score in found:
            assert score["score"] == pytest.approx(probabilities[int(score["label"][-1])].item(), rel=1e-4)


def test_token_classification(saved):
    folder = saved(GPT1ForTokenClassification, num_labels=2, id2label={0: "O", 1: "B-NAME"}, label2id={"O": 0})
    tagger = pipeline("token-classification", model=folder, device="cpu", ignore_labels=[])
    text = "The old Captain smiled, and Mr. X wept"
    ids = tagger.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        expected = tagger.model(**ids).logits[0].softmax(-1)  # (seq, labels)
    found = tagger(text)
    pieces = tagger.tokenizer.convert_ids_to_tokens(ids["input_ids"][0])
    for token, piece in zip(found, pieces, strict=True):
        assert token["word"] == (text[token["start"] : token["end"]] if piece == "<unk>" else piece)
    assert [token["score"] for token in found] == pytest.approx(expected.amax(-1).tolist(), rel=1e-4)
    names = ["O", "B-NAME"]
    assert [token["entity"] for token in found] == [names[index] for index in expected.argmax(-1).tolist()]
    assert text[found[0]["start"] : found[0]["end"]] == "The"
    groups = tagger(text, aggregation_strategy="simple")
    assert groups[0]["start"] == 0 and groups[-1]["end"] == len(text)


def test_feature_extraction(base_model):
    extractor = pipeline("feature-extraction", model=base_model, device="cpu")
    assert type(extractor.model) is GPT1Model
    texts = ["the old captain", "night"]
    for batch_size in (1, 2):
        for text, features in zip(texts, extractor(texts, batch_size=batch_size), strict=True):
            with torch.no_grad():
                states = extractor.model(**extractor.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            torch.testing.assert_close(torch.tensor(features[0])[: len(states)], states, rtol=1e-4, atol=1e-5)


ROWS = [
    {"document": "The captain wept.", "question": "Why?", "choices": ["The dark house.", "x"]},
    {"document": "The lady walked into the garden.", "choices": ["She smiled slowly and kindly.", "Never."]},
    {"document": "It's night.", "question": None, "choices": ["Good.", "Bad, bad, and cruel."]},
]


def probabilities(folder: str, row: dict) -> list[float]:
    """Of a row's choices, one sequence at a time, by hand."""
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForMultipleChoice.from_pretrained(folder)
    with torch.no_grad():
        scores = [
            model(input_ids=torch.tensor([[ids]]), attention_mask=torch.ones(1, 1, len(ids))).logits[0, 0]
            for ids in processor(row)["input_ids"]
        ]
    return torch.stack(scores).softmax(-1).tolist()


def test_multiple_choice(saved):
    folder = saved(GPT1ForMultipleChoice, "multiple_choice")
    answer = pipeline("multiple-choice", model=folder, device="cpu")
    assert type(answer) is MultipleChoicePipeline
    expected = [probabilities(folder, row) for row in ROWS]
    assert {scores.index(max(scores)) for scores in expected} == {0, 1}
    for batch_size in (1, 2, 3):
        found = answer(ROWS, top_k=None, batch_size=batch_size)
        for row, scores, answers in zip(ROWS, expected, found, strict=True):
            assert [one["score"] for one in answers] == sorted((one["score"] for one in answers), reverse=True)
            for one in answers:
                assert one["score"] == pytest.approx(scores[one["index"]], rel=1e-4)
                assert one["answer"] == row["choices"][one["index"]]
    (best, *_) = answer(ROWS[0], top_k=None)
    assert answer(ROWS[0]) == best and answer(ROWS[0], top_k=2)[0] == best
    assert [one["index"] for one in answer(iter_rows())] == [scores.index(max(scores)) for scores in expected]

    everything = pipeline("multiple-choice", model=folder, device="cpu", top_k=None)
    assert len(everything(ROWS[0])) == 2 and everything(ROWS[0], top_k=1) == best
    short = answer({**ROWS[0], "document": "The captain wept. " * 50}, max_length=16)
    assert short["score"] <= 1


def iter_rows():
    yield from ROWS


def test_multiple_choice_of_the_lstm(tokenizer, tmp_path):
    processor = GPT1Processor(tokenizer, input_format="multiple_choice")
    config = GPT1LSTMConfig(vocab_size=len(processor.tokenizer), hidden_size=16, lstm_size=16, initializer_range=0.5)
    GPT1LSTMForMultipleChoice(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    answer = pipeline("multiple-choice", model=str(tmp_path), device="cpu")
    scores = probabilities(str(tmp_path), ROWS[1])
    assert answer(ROWS[1])["score"] == pytest.approx(max(scores), rel=1e-4)


def test_multiple_choice_refuses_what_it_cannot_answer(saved):
    answer = pipeline("multiple-choice", model=saved(GPT1ForMultipleChoice, "multiple_choice"), device="cpu")
    three = {"document": "It's night.", "choices": ["a", "b", "c"]}
    assert len(answer([ROWS[0], three], top_k=None)[1]) == 3
    with pytest.raises(ValueError, match="set batch_size=1"):
        answer([ROWS[0], three], batch_size=2)
    with pytest.raises(ValueError, match="empty text"):
        answer({"document": " ", "choices": ["a", "b"]})
    with pytest.raises(ValueError, match="needs the column 'choices'"):
        answer({"document": "It's night."})
    with pytest.raises(ValueError, match="give rows as dictionaries"):
        answer("It's night.")
    with pytest.raises(ValueError, match="give at least 1"):
        answer(ROWS[0], top_k=0)
    with pytest.raises(ValueError, match="has no setting choices, document"):
        answer(ROWS[0], document="x", choices=["a"])
