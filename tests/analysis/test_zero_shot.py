"""Zero-shot heuristics: scores against loops over single sequences, and answers that can be worked out by hand."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from helpers.data import write_jsonl
from sklearn.metrics import matthews_corrcoef
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from gpt1_hf import GPT1ForCausalLM, GPT1LSTMConfig, GPT1LSTMForCausalLM, load_task
from gpt1_hf.analysis import zero_shot as module
from gpt1_hf.analysis.measure.zero_shot import earlier_scores
from gpt1_hf.analysis.zero_shot import (
    HEURISTICS,
    Scorer,
    ZeroShotArguments,
    best_threshold,
    evenly_spaced,
    score_answers,
    score_referents,
    score_sentences,
    score_sentiments,
    split_at_pronoun,
)
from gpt1_hf.cli import main
from gpt1_hf.errors import GPT1Error
from gpt1_hf.evaluation.bootstrap import score_interval
from gpt1_hf.modeling_gpt1_heads import CACHE


WINDOW = 64
SENTENCES = Dataset.from_dict({"text": ["The old captain smiled gently.", "Wept the.", "lady the into dark always"]})
QUESTIONS = Dataset.from_dict(
    {
        "document": ["The captain walked into the dark house.", "A kind lady wept. " * 20],
        "question": ["Where did the captain", "Who wept?"],
        "choices": [
            ["walk", "the garden and the house", "smile", "a letter"],
            ["the lady", "he", "the bad Mr. he", "it"],
        ],
    }
)
PRONOUNS = Dataset.from_dict(
    {
        "text": [
            "The lady smiled at the captain because he was kind.",
            "He saw the house and the garden; it was dark.",
        ],
        "pronoun": ["he", "it"],
        "choices": [["The lady", "the captain"], ["the house", "the garden"]],
    }
)


def new_lstm(tokenizer) -> GPT1LSTMForCausalLM:
    return GPT1LSTMForCausalLM(
        GPT1LSTMConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            lstm_size=16,
            max_position_embeddings=WINDOW,
            initializer_range=0.4,
            pad_token_id=0,
        )
    )


@pytest.fixture(params=["transformer", "lstm"])
def scorer(request, config, tokenizer) -> Scorer:
    torch.manual_seed(0)
    model = GPT1ForCausalLM(config) if request.param == "transformer" else new_lstm(tokenizer)
    return Scorer(model.eval(), tokenizer, WINDOW)


def log_probs(scorer: Scorer, context: list[int], tokens: list[int]) -> list[float]:
    """Log-probability of each token after context and earlier tokens: one sequence, one softmax at a time."""
    found = []
    for index, token in enumerate(tokens):
        with torch.no_grad():
            logits = scorer.model(input_ids=torch.tensor([[*context, *tokens[:index]]])).logits[0, -1].double()
        found.append(math.log(torch.softmax(logits, -1)[token]))
    return found


def ids_of(scorer: Scorer, text: str) -> list[int]:
    return scorer.tokenizer(text, add_special_tokens=False)["input_ids"]


class TestHeuristics:
    def test_a_sentence_is_scored_by_its_mean_log_probability(self, scorer):
        answers = score_sentences(scorer, SENTENCES)
        for text, (score,) in zip(SENTENCES["text"], answers.scores, strict=True):
            first, *rest = ids_of(scorer, text)
            assert score == pytest.approx(np.mean(log_probs(scorer, [first], rest)), abs=1e-4)
        assert not any(answers.cut)

    def test_a_sentiment_is_the_next_word_after_very(self, scorer):
        answers = score_sentiments(scorer, SENTENCES)
        words = [ids_of(scorer, "negative"), ids_of(scorer, "positive")]
        assert min(map(len, words)) > 1  # this vocabulary splits both
        assert answers.details == {"tokens_of_words": {"negative": len(words[0]), "positive": len(words[1])}}
        for text, scores in zip(SENTENCES["text"], answers.scores, strict=True):
            context = ids_of(scorer, f"{text} very")
            expected = [sum(log_probs(scorer, context, word)) for word in words]
            assert scores == pytest.approx(expected, abs=1e-4)

    def test_an_answer_is_scored_after_document_and_question(self, scorer):
        answers = score_answers(scorer, QUESTIONS)
        assert answers.cut == [False, True]
        for row, scores in zip(QUESTIONS, answers.scores, strict=True):
            context = ids_of(scorer, f"{row['document']} {row['question']}")
            choices = [ids_of(scorer, choice) for choice in row["choices"]]
            # The document loses its beginning, for all answers as much as the longest needs.
            context = context[-(WINDOW - max(map(len, choices))) :]
            expected = [np.mean(log_probs(scorer, context, choice)) for choice in choices]
            assert scores == pytest.approx(expected, abs=1e-4)

    def test_a_referent_is_scored_by_the_rest_of_the_sentence(self, scorer):
        expected = [
            [
                ("The lady smiled at the captain because the lady", "was kind."),
                ("The lady smiled at the captain because the captain", "was kind."),
            ],
            [
                ("He saw the house and the garden; the house", "was dark."),
                ("He saw the house and the garden; the garden", "was dark."),
            ],
        ]
        answers = score_referents(scorer, PRONOUNS)
        for row, scores in zip(expected, answers.scores, strict=True):
            by_hand = [np.mean(log_probs(scorer, ids_of(scorer, a), ids_of(scorer, b))) for a, b in row]
            assert scores == pytest.approx(by_hand, abs=1e-4)

    @pytest.mark.parametrize(
        ("heuristic", "rows"),
        [
            (score_sentences, SENTENCES),
            (score_sentiments, SENTENCES),
            (score_answers, QUESTIONS),
            (score_referents, PRONOUNS),
        ],
    )
    def test_the_batch_size_does_not_matter(self, scorer, heuristic, rows):
        expected = heuristic(scorer, rows).scores
        for batch_size in (1, 2):
            scorer.batch_size = batch_size
            for row, scores in zip(expected, heuristic(scorer, rows).scores, strict=True):
                assert scores == pytest.approx(row, abs=1e-4)


class TestKnownProbabilities:
    """A model whose probabilities do not depend on what it has read, so that the scores are sums of a few numbers."""

    class Unigram:
        device = torch.device("cpu")

        def __init__(self, log_probs: torch.Tensor):
            self.log_probs = log_probs

        def eval(self):
            return self

        def __call__(self, **inputs):
            return self.forward(**inputs)

        def forward(self, input_ids, **inputs):
            cache = SimpleNamespace(reorder_cache=lambda rows: None)
            return CausalLMOutputWithPast(logits=self.log_probs.expand(*input_ids.shape, -1), **{CACHE: cache})

    @pytest.fixture
    def scorer(self, tokenizer) -> Scorer:
        counts = torch.full((len(tokenizer),), 1.0)
        for token in tokenizer("lady", add_special_tokens=False)["input_ids"]:
            counts[token] = 50.0  # a word that this model expects everywhere
        return Scorer(self.Unigram((counts / counts.sum()).log()), tokenizer, WINDOW)

    def test_sentences(self, scorer):
        rows = Dataset.from_dict({"text": ["lady lady lady", "garden garden", "lady garden"]})
        expected = [scorer.model.log_probs[ids_of(scorer, text)[1:]].mean().item() for text in rows["text"]]
        scores = [score for (score,) in score_sentences(scorer, rows).scores]
        assert scores == pytest.approx(expected, abs=1e-5)
        assert scores[0] > scores[1]

    def test_answers_are_normalized_by_their_length(self, scorer):
        rows = Dataset.from_dict({"document": ["A"], "question": ["who?"], "choices": [["lady lady", "garden"]]})
        assert len(ids_of(scorer, "garden")) == 1  # it is the more probable as a whole only if it is shorter
        ((long, short),) = score_answers(scorer, rows).scores
        assert long == pytest.approx(scorer.model.log_probs[ids_of(scorer, "lady lady")].mean().item(), abs=1e-5)
        assert short == pytest.approx(scorer.model.log_probs[ids_of(scorer, "garden")].item(), abs=1e-5)
        assert long > short

    def test_sentiments_are_whole_words(self, scorer):
        for word, other in (("positive", 0), ("negative", 1)):
            counts = torch.full((len(scorer.tokenizer),), 1.0)
            for token in set(ids_of(scorer, word)) - set(ids_of(scorer, ("negative", "positive")[other])):
                counts[token] = 1000.0
            scorer.model.log_probs = (counts / counts.sum()).log()
            ((*scores,),) = score_sentiments(scorer, SENTENCES.select([0])).scores
            expected = [scorer.model.log_probs[ids_of(scorer, w)].sum().item() for w in ("negative", "positive")]
            assert scores == pytest.approx(expected, abs=1e-4)
            assert int(np.argmax(scores)) == 1 - other

    def test_nothing_to_score_is_minus_infinity(self, scorer):
        one_token = Dataset.from_dict({"text": ["the", "", "the lady"]})
        scores = [score for (score,) in score_sentences(scorer, one_token).scores]
        assert scores[:2] == [-math.inf, -math.inf] and math.isfinite(scores[2])


class TestCut:
    @pytest.mark.parametrize("question", ["Who wept?", "Who wept? " * 50])
    def test_the_text_just_before_the_answer_is_kept(self, tokenizer, monkeypatch, question):
        seen = []
        monkeypatch.setattr(
            module, "choice_log_probs", lambda model, contexts, *_, **__: seen.append(contexts) or [[]]
        )
        text = f"{'A kind lady. ' * 20} {question}"
        Scorer(None, tokenizer, 16).score_choices([text], [["he", "the house"]])
        ((context,),) = seen
        assert len(context) == 16 - len(tokenizer("the house", add_special_tokens=False)["input_ids"])
        assert context == tokenizer(text, add_special_tokens=False)["input_ids"][-len(context) :]

    def test_an_answer_longer_than_the_context_keeps_a_token_before_it(self, scorer):
        scorer.window = 8
        rows = Dataset.from_dict(
            {"document": ["the lady"], "question": ["who"], "choices": [["the old house and the garden " * 3, "he"]]}
        )
        answers = score_answers(scorer, rows)
        assert answers.cut == [True]
        last = ids_of(scorer, "the lady who")[-1:]
        longest = ids_of(scorer, "the old house and the garden " * 3)[:7]
        expected = [np.mean(log_probs(scorer, last, ids)) for ids in (longest, ids_of(scorer, "he"))]
        assert answers.scores[0] == pytest.approx(expected, abs=1e-4)

    def test_a_long_sentence_keeps_its_end(self, scorer):
        scorer.window = 8
        ids = ids_of(scorer, "the old lady and the young captain walked into the garden")
        answers = score_sentences(scorer, Dataset.from_dict({"text": [scorer.tokenizer.decode(ids)]}))
        assert answers.cut == [True]
        expected = np.mean(log_probs(scorer, ids[-8:-7], ids[-7:]))
        assert answers.scores[0] == pytest.approx([expected], abs=1e-4)


class TestPronoun:
    @pytest.mark.parametrize(
        ("sentence", "pronoun", "candidates", "before"),
        [
            ("Ann met Eve, and she left.", "she", ["Ann", "Eve"], "Ann met Eve, and "),
            (
                "The shed fell on them; the thing hid them.",
                "them",
                ["shed", "thing"],
                "The shed fell on them; the thing hid ",
            ),
            ("They knew that Al and Bo said they left.", "they", ["Al", "Bo"], "They knew that Al and Bo said "),
            ("He thinks that Al likes Bo.", "he", ["Al", "Bo"], ""),
            ("Al met Bo and he thinks he won.", "he", ["Al", "Bo"], "Al met Bo and "),
        ],
    )
    def test_the_first_pronoun_after_the_candidates_is_taken(self, sentence, pronoun, candidates, before):
        assert split_at_pronoun(sentence, pronoun, candidates) == (before, sentence[len(before) + len(pronoun) :])

    def test_part_of_a_word_is_not_a_pronoun(self):
        with pytest.raises(GPT1Error, match="'he' is not in the sentence"):
            split_at_pronoun("The other one then.", "he", ["one", "other"])

    def test_the_pronouns_of_all_real_rows_are_found(self, data_dir):
        rows = load_task("dpr").load("train", data_dir)
        for row in rows:
            before, after = split_at_pronoun(row["text"], row["pronoun"], row["choices"])
            assert (before + row["pronoun"] + after).lower() == row["text"].lower()
            assert before


class TestThreshold:
    @pytest.mark.parametrize("seed", range(5))
    def test_no_other_threshold_is_better_on_these_rows(self, seed):
        rng = np.random.default_rng(seed)
        labels = (rng.random(60) < 0.7).astype(int)
        scores = np.round(rng.normal(size=60) + 0.8 * labels, 1)  # with ties
        threshold, reached = best_threshold(scores, labels)
        every = np.unique(scores)
        possible = [
            100 * matthews_corrcoef(labels, (scores > cut).astype(int)) for cut in (every[1:] + every[:-1]) / 2
        ]
        assert reached == pytest.approx(max(possible))
        assert 100 * matthews_corrcoef(labels, (scores > threshold).astype(int)) == pytest.approx(reached)
        assert threshold not in scores

    def test_rows_of_one_class_or_score(self):
        assert best_threshold(np.array([1.0, 2.0]), np.array([1, 1])) == (1.5, 0.0)
        with pytest.raises(GPT1Error, match="the same score"):
            best_threshold(np.array([1.0, 1.0]), np.array([0, 1]))


def lay_out(folder, task_id: str, rows: list[dict], split: str) -> str:
    task = load_task(task_id)
    write_jsonl(folder / task.dataset / task.config / f"{split}.jsonl", rows)
    return str(folder)


class TestCommand:
    def run(self, *argv) -> list[dict]:
        assert main(["zero-shot", *map(str, argv)]) == 0
        return json.loads((argv[-1] / "results.json").read_text())

    def test_cola(self, base_model, tmp_path):
        own, relative = self.run("--task", "cola", "--sample", "--model", base_model, "--output_dir", tmp_path)
        assert (own["task"], own["split"], own["metric"]) == ("cola", "validation", "matthews_correlation")
        assert own["paper"] is None and own["details"]["method"] == "zero-shot"
        assert relative["metric"] == "relative_performance"
        assert relative["value"] == pytest.approx(own["value"] / 45.4, abs=1e-3)
        rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
        assert len(rows) == own["n_examples"]
        threshold = own["details"]["threshold"]
        assert all(row["prediction"] == (row["scores"][0] > threshold) for row in rows)
        assert {"id", "label", "prediction", "scores", "truncated"} == set(rows[0])

    def test_race_in_parts(self, base_model, tmp_path, caplog):
        row = {"article": "The lady wept.", "question": "Who _ ?", "options": ["he", "it", "a lady", "his"]}
        rows = [{**row, "answer": letter, "example_id": f"middle{index}.txt"} for index, letter in enumerate("ABCD")]
        data_dir = tmp_path / "data"
        write_jsonl(data_dir / "ehovy" / "race" / "middle" / "validation.jsonl", rows)
        own, relative = self.run(
            "--task", "race", "--data_dir", data_dir, "--model", base_model, "--output_dir", tmp_path / "out"
        )
        assert (own["split"], own["value"], own["n_examples"]) == ("validation_middle", 25.0, 4)
        assert relative["value"] == 0.0 and relative["details"]["best_supervised"] == 62.9

    def test_questions_on_the_same_text_are_drawn_together(self, base_model, tmp_path):
        row = {"question": "Who _ ?", "options": ["he", "it", "a lady", "his"]}
        rows = [
            {
                **row,
                "article": f"The lady wept {index % 5} times.",
                "answer": "ABCD"[index % 4],
                "example_id": "high1.txt",
            }
            for index in range(20)
        ]
        write_jsonl(tmp_path / "data" / "ehovy" / "race" / "high" / "validation.jsonl", rows)
        out = tmp_path / "out"
        flags = ["--task", "race:high", "--data_dir", tmp_path / "data", "--model", base_model, "--output_dir", out]
        own, _ = self.run(*flags)
        answered = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        assert [row["document"] for row in answered] == [index % 5 for index in range(20)]
        labels, chosen, documents = (
            np.array([row[name] for row in answered]) for name in ("label", "prediction", "document")
        )
        expected = score_interval("accuracy", chosen, labels, documents)
        assert own["details"]["interval"] == pytest.approx(expected, abs=0.005)
        assert own["details"]["resampled"] == "documents"
        # Predictions of an earlier version did not name the documents.
        earlier = [{name: value for name, value in row.items() if name != "document"} for row in answered]
        write_jsonl(out / "predictions.jsonl", earlier)
        args = ZeroShotArguments(
            task="race:high", data_dir=str(tmp_path / "data"), model=base_model, output_dir=str(out)
        )
        (again, _), found = earlier_scores(args)
        assert found == answered and again.details["interval"] == own["details"]["interval"]

    def test_one_subset(self, base_model, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        whole = self.run("--task", "race", "--sample", "--model", base_model, "--output_dir", tmp_path / "whole")
        part = self.run("--task", "race:middle", "--sample", "--model", base_model, "--output_dir", tmp_path / "part")
        assert {row["split"] for row in part} == {"validation_middle"}
        values = {(row["split"], row["metric"]): (row["value"], row["details"]["interval"]) for row in whole}
        for row in part:
            assert values[row["split"], row["metric"]] == (row["value"], row["details"]["interval"])
        folders = [ZeroShotArguments(task=task, model="m").output_dir for task in ("race", "race:middle")]
        assert folders[0] != folders[1] and ":" not in folders[1]

    def test_the_interval_is_printed_and_recorded(self, base_model, tmp_path, capsys):
        own, relative = self.run("--task", "sst2", "--sample", "--model", base_model, "--output_dir", tmp_path)
        rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
        labels, predictions = (np.array([row[name] for row in rows]) for name in ("label", "prediction"))
        low, high = own["details"]["interval"]
        assert (low, high) == pytest.approx(score_interval("accuracy", predictions, labels), abs=0.005)
        assert own["details"]["chance"] == pytest.approx(100 * max(labels.mean(), 1 - labels.mean()), abs=0.005)
        assert relative["details"]["interval"] == pytest.approx([(low - 50) / 43.2, (high - 50) / 43.2], abs=1e-3)
        assert f"{low:.2f} to {high:.2f}" in capsys.readouterr().out

    def test_dpr(self, base_model, tmp_path):
        rows = [{"sentence": "The lady saw the captain and she wept.", "pronoun": "she"}] * 4
        rows = [{**row, "candidates": ["The lady", "the captain"], "label": n % 2} for n, row in enumerate(rows)]
        data_dir = lay_out(tmp_path / "data", "dpr", rows, "train")
        own, relative = self.run(
            "--task", "dpr", "--data_dir", data_dir, "--model", base_model, "--output_dir", tmp_path / "out"
        )
        assert (own["split"], own["value"], relative["value"]) == ("train", 50.0, 0.0)

    def test_hidden_labels_give_predictions_only(self, base_model, tmp_path):
        data_dir = lay_out(tmp_path / "data", "sst2", [{"sentence": "a kind lady", "label": -1, "idx": 0}], "test")
        out = tmp_path / "out"
        argv = ("--split", "test", "--data_dir", data_dir, "--model", base_model, "--output_dir", out)
        assert self.run("--task", "sst2", *argv) == []
        assert json.loads((out / "predictions.jsonl").read_text())["label"] == -1

    def test_the_librarys_own_openai_gpt(self, tokenizer, tmp_path):
        folder = tmp_path / "openai"
        config = OpenAIGPTConfig(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=WINDOW)
        OpenAIGPTLMHeadModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        own, _ = self.run("--task", "sst2", "--sample", "--model", folder, "--output_dir", tmp_path / "out")
        assert own["details"]["window"] == WINDOW

    def test_max_examples_are_spread_over_the_split(self):
        assert evenly_spaced(10, 4) == [0, 2, 5, 7]
        assert evenly_spaced(10, 10) == evenly_spaced(10, 99) == evenly_spaced(10, None) == list(range(10))

    def test_bad_input_is_one_sentence(self, base_model, tmp_path, capsys):
        out = ["--model", base_model, "--output_dir", str(tmp_path)]
        cases = {
            "there is no zero-shot heuristic for task mnli": ["--task", "mnli", *out],
            "max_examples must be at least 1, not 0": ["--task", "sst2", "--sample", "--max_examples", "0", *out],
            "max_length must be at least 2, not 1": ["--task", "sst2", "--sample", "--max_length", "1", *out],
        }
        for message, argv in cases.items():
            assert main(["zero-shot", *argv]) == 2
            assert message in capsys.readouterr().err
        assert main(["zero-shot", "--sample", *out]) == 2
        assert "zero-shot needs --task (Task id: cola, dpr, race, sst2; or a YAML file)" in capsys.readouterr().err


def test_every_heuristic_belongs_to_a_task():
    for task_id, heuristic in HEURISTICS.items():
        task = load_task(task_id)
        assert heuristic.best or task.paper
        assert heuristic.split in task.splits
