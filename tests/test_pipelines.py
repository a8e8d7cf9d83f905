"""transformers' own pipelines on this family, and ours for multiple choice: each against the model called by hand."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoProcessor,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GenerationConfig,
    TextClassificationPipeline,
    pipeline,
)

from gpt1_hf import (
    GPT1ForMultipleChoice,
    GPT1ForSequenceClassification,
    GPT1ForTokenClassification,
    GPT1LSTMConfig,
    GPT1LSTMForMultipleChoice,
    GPT1LSTMForSequenceClassification,
    GPT1Model,
    GPT1Processor,
    GPT1TextClassificationPipeline,
    MultipleChoicePipeline,
    modeling_gpt1_cpu,
)


@pytest.fixture
def saved(base_model, tokenizer, tmp_path):
    """Save a head on the base model, with a processor of a format or the plain tokenizer."""

    def save(model_class, input_format: str | None = None, std: float = 5.0, **config) -> str:
        torch.manual_seed(0)
        reader = GPT1Processor(tokenizer, input_format=input_format) if input_format else tokenizer
        model = model_class.from_pretrained(base_model, dtype="float32", **config)
        if input_format:
            model.resize_token_embeddings(len(reader.tokenizer), mean_resizing=False)
        torch.nn.init.normal_(model.classifier.weight, std=std)
        model.save_pretrained(tmp_path)
        reader.save_pretrained(tmp_path)
        return str(tmp_path)

    return save


def test_text_generation(base_model):
    generator = pipeline("text-generation", model=base_model, device="cpu")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base_model), AutoTokenizer.from_pretrained(base_model)
    # The pipeline joins prompt and decoded new text, which brings the space before its first word.
    prompts = ["the old captain", "a dark night in the garden and"]
    greedy = GenerationConfig(max_new_tokens=5, do_sample=False, pad_token_id=0)
    for batch_size in (1, 2):
        tensors = generator(prompts, generation_config=greedy, batch_size=batch_size, return_tensors=True)
        texts = generator(prompts, generation_config=greedy, batch_size=batch_size)
        for prompt, (ids,), (text,) in zip(prompts, tensors, texts, strict=True):
            output = model.generate(**tokenizer(prompt, return_tensors="pt"), generation_config=greedy)[0].tolist()
            assert ids["generated_token_ids"][-len(output) :] == output  # after padding on the left
            assert " " + text["generated_text"] == tokenizer.decode(output)
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


@pytest.mark.skipif(not modeling_gpt1_cpu._has_onednn(), reason="needs an x86 CPU and oneDNN")
@pytest.mark.parametrize(
    "task, model_class, input_format, row",
    [
        ("text-classification", GPT1ForSequenceClassification, "classification", "the old lady wept."),
        (
            "multiple-choice",
            GPT1ForMultipleChoice,
            "multiple_choice",
            {"document": "the old lady", "choices": ["wept", "smiled"]},
        ),
    ],
)
def test_fast_products_in_our_pipelines(saved, monkeypatch, task, model_class, input_format, row):
    monkeypatch.setattr(modeling_gpt1_cpu, "LEAST_FP32_WEIGHTS", 0)
    product, calls, scores = modeling_gpt1_cpu._product, [], []
    monkeypatch.setattr(modeling_gpt1_cpu, "_product", lambda *args: calls.append(len(args[0])) or product(*args))
    answer = pipeline(task, model=saved(model_class, input_format), device="cpu")
    for has_onednn in (False, True):
        monkeypatch.setattr(modeling_gpt1_cpu, "_has_onednn", lambda has_onednn=has_onednn: has_onednn)
        scores.append([score["score"] for score in answer(row, top_k=None)])
        assert bool(calls) is has_onednn
    assert scores[1] == pytest.approx(scores[0], rel=1e-4)


TEXTS = ["the house was kind and bright", "cruel", "the old lady wept. " * 6]
PAIRS = list(zip(TEXTS, ["she spoke gently", "the captain walked into the garden", "never"], strict=True))
PAIRED = [{"text": one, "text_pair": other} for one, other in PAIRS]


def logits_by_hand(model, processor, row: dict) -> torch.Tensor:
    """Logits of one row: each of its sequences by itself, without padding; for similarity, their sum."""
    sequences = processor(row, max_length=model.config.max_position_embeddings)["input_ids"]
    if not processor.has_several_sequences:
        with torch.no_grad():
            return model(input_ids=torch.tensor([sequences]), attention_mask=torch.ones(1, len(sequences))).logits[0]
    # Both orders have the same length, so that there is no padding either.
    with torch.no_grad():
        return model(input_ids=torch.tensor([sequences]), attention_mask=torch.ones(1, 2, len(sequences[0]))).logits[0]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("input_format", ["classification", "entailment", "similarity"])
def test_text_classification_uses_the_processors_sequences(saved, input_format, side):
    folder = saved(GPT1ForSequenceClassification, input_format, std=0.2, num_labels=2)
    classify = pipeline("text-classification", model=folder, device="cpu", top_k=None)
    assert type(classify) is GPT1TextClassificationPipeline
    classify.tokenizer.padding_side = side
    processor = AutoProcessor.from_pretrained(folder)
    columns = processor.columns
    rows = [
        dict(zip(columns, texts, strict=True)) for texts in ([(t,) for t in TEXTS] if len(columns) == 1 else PAIRS)
    ]
    expected = [logits_by_hand(classify.model, processor, row).softmax(-1).tolist() for row in rows]
    for inputs in (TEXTS if len(columns) == 1 else PAIRED, rows):
        for batch_size in (1, 2, 3):
            found = classify(inputs, batch_size=batch_size)
            for answers, probabilities in zip(found, expected, strict=True):
                by_name = {answer["label"]: answer["score"] for answer in answers}
                assert [by_name["LABEL_0"], by_name["LABEL_1"]] == pytest.approx(probabilities, abs=1e-5)
    assert classify(inputs[0]) == classify(inputs)[0]  # a row by itself


def test_similarity_reads_both_orders(saved):
    folder = saved(GPT1ForSequenceClassification, "similarity", std=0.2, num_labels=2)
    classify = pipeline("text-classification", model=folder, device="cpu", top_k=None)
    (one, other) = PAIRS[0]
    there, back = classify([{"text": one, "text_pair": other}, {"text": other, "text_pair": one}])
    assert there[0]["label"] == back[0]["label"] and there[0]["score"] == pytest.approx(back[0]["score"], abs=1e-6)
    # the tokenizer alone makes only one order, which has another score
    with torch.no_grad():
        logits = classify.model(**classify.tokenizer(one, other, return_tensors="pt")).logits[0]
    assert abs(logits.softmax(-1).max().item() - there[0]["score"]) > 0.01


@pytest.mark.parametrize("bins", [None, 6])
@pytest.mark.parametrize("problem_type", [None, "regression"])
def test_a_score_is_returned_unchanged(saved, bins, problem_type):
    settings = {"num_labels": 1, "id2label": {0: "score"}, "regression_bins": bins, "problem_type": problem_type}
    folder = saved(GPT1ForSequenceClassification, "similarity", std=0.2, **settings)
    rate = pipeline("text-classification", model=folder, device="cpu")
    for (one, other), found in zip(PAIRS, rate(PAIRED), strict=True):
        row = {"text_a": one, "text_b": other}
        expected = logits_by_hand(rate.model, AutoProcessor.from_pretrained(folder), row).item()
        assert found == {"label": "score", "score": pytest.approx(expected, abs=1e-4)}
    as_logit = rate(PAIRED[0], function_to_apply="sigmoid")["score"]
    assert as_logit == pytest.approx(torch.tensor(rate(PAIRED[0])["score"]).sigmoid().item(), abs=1e-5)


def test_a_long_text_is_cut_as_the_processor_does(saved):
    folder = saved(GPT1ForSequenceClassification, "classification", std=0.2, num_labels=2)
    classify = pipeline("text-classification", model=folder, device="cpu", top_k=None)
    long = "the captain wept. " * 100
    processor = AutoProcessor.from_pretrained(folder)
    probabilities = logits_by_hand(classify.model, processor, {"text": long}).softmax(-1)
    assert classify([long])[0][0]["score"] == pytest.approx(probabilities.max().item(), abs=1e-5)
    (short,) = classify([long], max_length=8, truncation=True, padding=True)
    by_hand = processor({"text": long}, max_length=8)["input_ids"]
    with torch.no_grad():
        probabilities = classify.model(torch.tensor([by_hand])).logits[0].softmax(-1)
    assert len(by_hand) == 8 and short[0]["score"] == pytest.approx(probabilities.max().item(), abs=1e-5)
    with pytest.raises(ValueError, match="no setting truncation=False"):
        classify(long, truncation=False)
    with pytest.raises(ValueError, match="no setting stride"):
        classify(long, stride=3)


@pytest.mark.parametrize("input_format", ["classification", "entailment", "similarity", "multiple_choice"])
def test_a_tokenizer_with_a_shorter_limit_than_the_context(saved, tokenizer, tmp_path, input_format):
    """Without a record of training, the length is the processor's own, in pipelines as elsewhere."""
    several = input_format == "multiple_choice"
    head = GPT1ForMultipleChoice if several else GPT1ForSequenceClassification
    folder = saved(head, input_format, std=0.2, **({} if several else {"num_labels": 2}))
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.tokenizer.model_max_length == 64
    processor.tokenizer.model_max_length = 16
    processor.save_pretrained(folder)
    answer = pipeline("multiple-choice" if several else "text-classification", model=folder, device="cpu", top_k=None)
    long = ["The captain wept. " * 20, "She smiled. " * 20, "She smiled and never spoke. " * 9]
    row = {"document": long[0], "choices": long[1:]} if several else dict(zip(processor.columns, long, strict=False))
    ids = AutoProcessor.from_pretrained(folder)(row)["input_ids"]
    assert len(ids[0] if processor.has_several_sequences else ids) == 16
    ids = torch.tensor([ids])
    with torch.no_grad():
        expected = answer.model(ids, attention_mask=torch.ones_like(ids)).logits[0].softmax(-1)
    (found,) = answer([row])
    assert found[0]["score"] == pytest.approx(expected.max().item(), abs=1e-5)
    with pytest.raises(ValueError, match="max_length 0 is too short"):
        answer([row], max_length=0)


def test_text_classification_refuses_what_the_format_does_not_read(saved, base_model):
    classify = pipeline("text-classification", model=saved(GPT1ForSequenceClassification, "similarity"), device="cpu")
    for wrong in ("one text", {"text": "one text"}, {"premise": "a", "hypothesis": "b"}, ["a", "b"]):
        with pytest.raises(ValueError, match='similarity format reads a pair as {"text": ..., "text_pair": ...}'):
            classify([wrong])
    assert classify([[["a", "b"]]])  # as transformers once took pairs
    classify = pipeline("text-classification", saved(GPT1ForSequenceClassification, "classification"), device="cpu")
    with pytest.raises(ValueError, match="classification format reads a text, not"):
        classify({"text": "one", "text_pair": "another"})
    with pytest.raises(ValueError, match="empty text"):
        classify(" ")
    with pytest.raises(ValueError, match=r'use pipeline\("multiple-choice"\)'):
        chooser = GPT1Processor(AutoTokenizer.from_pretrained(base_model), "multiple_choice").tokenizer
        pipeline("text-classification", model=classify.model, tokenizer=chooser, device="cpu")


def test_other_models_are_classified_by_transformers_own_class(base_model, tokenizer, tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=1, **sizes)).eval()
    ours = pipeline("sentiment-analysis", model=bert, tokenizer=tokenizer, device="cpu")
    theirs = TextClassificationPipeline(model=bert, tokenizer=tokenizer, device="cpu")
    assert ours(TEXTS) == theirs(TEXTS) and ours(TEXTS[0], top_k=None) == theirs(TEXTS[0], top_k=None)
    assert ours(PAIRED, truncation=True, max_length=9) == theirs(PAIRED, truncation=True, max_length=9)
    # a GPT-1 whose tokenizer was not saved by a processor
    bare = pipeline("text-classification", model=base_model, device="cpu")
    theirs = TextClassificationPipeline(model=bare.model, tokenizer=bare.tokenizer, device="cpu")
    assert bare.processor is None and bare(TEXTS) == theirs(TEXTS)


def test_zero_shot_classification_by_an_entailment_model(saved):
    names = {0: "entailment", 1: "neutral", 2: "contradiction"}
    settings = {"num_labels": 3, "id2label": names, "label2id": {name: index for index, name in names.items()}}
    folder = saved(GPT1ForSequenceClassification, "entailment", std=0.2, **settings)
    classify = pipeline("zero-shot-classification", model=folder, device="cpu")
    labels, processor = ["the garden", "night"], AutoProcessor.from_pretrained(folder)
    for side in ("left", "right"):
        classify.tokenizer.padding_side = side
        for text in TEXTS[:2]:
            rows = [{"premise": text, "hypothesis": f"it's {label}"} for label in labels]
            logits = torch.stack([logits_by_hand(classify.model, processor, row)[0] for row in rows])
            found = classify(text, labels, hypothesis_template="it's {}", batch_size=2)
            scores = dict(zip(found["labels"], found["scores"], strict=True))
            assert [scores[label] for label in labels] == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)


def test_pipelines_are_saved_with_their_processor(saved, tmp_path):
    for task, head, input_format in (
        ("text-classification", GPT1ForSequenceClassification, "similarity"),
        ("multiple-choice", GPT1ForMultipleChoice, "multiple_choice"),
    ):
        before = pipeline(task, model=saved(head, input_format), device="cpu")
        before.save_pretrained(tmp_path / task)
        again = pipeline(task, model=str(tmp_path / task), device="cpu")
        row = PAIRED[0] if task == "text-classification" else ROWS[0]
        assert type(again) is type(before) and again(row) == before(row)
        assert AutoProcessor.from_pretrained(tmp_path / task).input_format == input_format


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
    """Probabilities of a row's choices, one sequence at a time."""
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
    for batch_size, side in ((1, "right"), (2, "right"), (3, "right"), (2, "left"), (3, "left")):
        answer.tokenizer.padding_side = side
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


def test_text_classification_of_the_lstm(tokenizer, tmp_path):
    processor = GPT1Processor(tokenizer, input_format="similarity")
    sizes = {"vocab_size": len(processor.tokenizer), "hidden_size": 16, "lstm_size": 16, "num_labels": 1}
    GPT1LSTMForSequenceClassification(GPT1LSTMConfig(**sizes, initializer_range=0.5)).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    rate = pipeline("text-classification", model=str(tmp_path), device="cpu")
    expected = [logits_by_hand(rate.model, processor, {"text_a": a, "text_b": b}).item() for a, b in PAIRS]
    for side in ("left", "right"):
        rate.tokenizer.padding_side = side
        found = [answer["score"] for answer in rate(PAIRED, batch_size=3)]
        assert found == pytest.approx(expected, abs=1e-4)


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
    with pytest.raises(ValueError, match="pass rows as dictionaries"):
        answer("It's night.")
    with pytest.raises(ValueError, match="set it to at least 1"):
        answer(ROWS[0], top_k=0)
    with pytest.raises(ValueError, match="has no setting choices, document"):
        answer(ROWS[0], document="x", choices=["a"])
