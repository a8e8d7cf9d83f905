"""Zero-shot tasks (paper §5, "Zero-shot Behaviors"): a language model's own probabilities answer, without training.

| task | the row as text | score of a class |
|---|---|---|
| `cola` | the sentence | mean log-probability of its tokens, against the best threshold for the training rows |
| `sst2` | the sentence and "very" | log-probability of the next word being "negative" or "positive" |
| `race` | document, question and an answer | mean log-probability of the answer's tokens |
| `dpr` | the sentence, a candidate in place of its pronoun | mean log-probability of the tokens after the candidate |

Other tasks use the heuristic of the one that they resemble, see [`heuristic_of`].

The paper leaves some points open. Here:

- On SST-2 whole words are compared. The paper compares *tokens*, and in its vocabulary both words are one token. Where
  a vocabulary splits them, a word's probability is the product of its tokens' probabilities. It is not divided by
  their number, because the choice is between two words, not between two ways to split them.
- A row that is longer than the context loses its beginning. What remains is running text, as in pre-training, and
  includes the text just before the prediction, which matters most. All answers to a question get the same cut.
- The first token of a sentence has no context, and is not scored.
"""

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..checkpoints.loading import compute_device, open_causal_lm, open_tokenizer
from ..console import note
from ..data.loading import evenly_spaced
from ..errors import GPT1Error, UsageError
from ..evaluation.bootstrap import RESAMPLES, chance, score_interval
from ..evaluation.log_probs import choice_log_probs, token_log_probs
from ..evaluation.precision import precision_of
from ..evaluation.results import Result, format_results, write_results
from ..evaluation.task_scores import task_results, write_predictions
from ..files import check_writable, default_folder
from ..settings import NO_LIMIT, check_ranges, default_data_dir, nearest
from ..tasks import Task, load_task
from ..training_record import check_tokenizer, rows_digest


logger = logging.getLogger(__name__)

RELATIVE = "relative_performance"  # the metric of Figure 2
SENTIMENTS = ("negative", "positive")  # the two words, in the order of SST-2's labels


@dataclass
class Answers:
    """
    A heuristic's scores for rows: one for each class, or one to compare with a threshold. Without a token to score it
    is minus infinity. `cut` says which rows were longer than the context.
    """

    scores: list[list[float]]
    cut: list[bool]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Scorer:
    """A causal language model that scores texts, in sequences of at most `window` tokens."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    window: int
    batch_size: int = 16  # the scores do not depend on it
    desc: str | None = "scoring"  # label of the progress bars; `None` hides them

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without special tokens. A text that spells a special token is plain text."""
        encoding = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
        return encoding["input_ids"]

    def score_ends(self, beginnings: Sequence[str], texts: Sequence[str]) -> tuple[list[np.ndarray], list[bool]]:
        """Log-probabilities of the tokens after each text's beginning, and which texts were cut."""
        sequences, n_scored, cut = [], [], []
        for beginning, ids in zip(self.encode(beginnings), self.encode(texts), strict=True):
            sequences.append(ids[-self.window :])
            n_scored.append(min(len(ids) - n_shared(beginning, ids), max(0, len(sequences[-1]) - 1)))
            cut.append(len(ids) > self.window)
        return token_log_probs(self.model, sequences, n_scored, self.batch_size, desc=self.desc), cut

    def score_choices(
        self, contexts: Sequence[str], choices: Sequence[Sequence[str]]
    ) -> tuple[list[list[np.ndarray]], list[bool]]:
        """Log-probabilities of the tokens of each choice after its context, and which rows were cut."""
        context_ids, choice_ids, cut = [], [], []
        for context, row in zip(contexts, choices, strict=True):
            # Encoded together: some tokenizers encode a word differently after a space than at the beginning of a
            # text.
            context, *texts = self.encode([context, *(f"{context} {choice}" for choice in row)])
            start = max(1, min(n_shared(context, ids) for ids in texts))
            ends = [ids[start:][: self.window - 1] for ids in texts]
            context_ids.append(texts[0][:start][max(map(len, ends)) - self.window :])
            choice_ids.append(ends)
            cut.append(max(map(len, texts)) > self.window)
        return choice_log_probs(self.model, context_ids, choice_ids, self.batch_size, desc=self.desc), cut


def n_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of leading tokens that two sequences share."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(first), len(second)))


def mean_log_prob(log_probs: np.ndarray) -> float:
    """Mean token log-probability; minus infinity without any token."""
    return float(log_probs.mean(dtype=np.float64)) if len(log_probs) else -math.inf


def score_sentences(scorer: Scorer, rows: Dataset) -> Answers:
    """CoLA: the mean token log-probability of each sentence."""
    texts = rows["text"][:]
    log_probs, cut = scorer.score_ends([""] * len(rows), texts)
    return Answers([[mean_log_prob(row)] for row in log_probs], cut)


def score_sentiments(scorer: Scorer, rows: Dataset) -> Answers:
    """SST-2: the log-probability of "negative" and of "positive", in this order, after each text and "very"."""
    contexts = [f"{text.rstrip()} very" for text in rows["text"][:]]
    log_probs, cut = scorer.score_choices(contexts, [SENTIMENTS] * len(rows))
    n_tokens = dict(zip(SENTIMENTS, map(len, log_probs[0]), strict=True))
    return Answers([[float(word.sum()) for word in row] for row in log_probs], cut, {"tokens_of_words": n_tokens})


def score_answers(scorer: Scorer, rows: Dataset) -> Answers:
    """RACE: the mean token log-probability of each answer after document and question."""
    contexts = [
        f"{document} {question}" for document, question in zip(rows["document"][:], rows["question"][:], strict=True)
    ]
    log_probs, cut = scorer.score_choices(contexts, rows["choices"][:])
    return Answers([[mean_log_prob(choice) for choice in row] for row in log_probs], cut)


def score_referents(scorer: Scorer, rows: Dataset) -> Answers:
    """Definite pronouns: the mean log-probability of what follows each candidate in the pronoun's place."""
    beginnings, texts = [], []
    for row in rows:
        before, after = split_at_pronoun(row["text"], row["pronoun"], row["choices"])
        beginnings += [before + candidate for candidate in row["choices"]]
        texts += [before + candidate + after for candidate in row["choices"]]
    log_probs, cut = scorer.score_ends(beginnings, texts)
    scores, cuts = map(mean_log_prob, log_probs), iter(cut)
    return Answers(
        [[next(scores) for _ in row] for row in rows["choices"][:]],
        [any([next(cuts) for _ in row]) for row in rows["choices"][:]],
    )


def split_at_pronoun(sentence: str, pronoun: str, candidates: Sequence[str]) -> tuple[str, str]:
    """
    The parts of a sentence before and after its pronoun. If the pronoun occurs more than once, the first occurrence
    after all candidates is taken: that one refers back to them.

    Raises:
        GPT1Error: if the pronoun is not in the sentence.
    """
    places = list(re.finditer(rf"(?<!\w){re.escape(pronoun)}(?!\w)", sentence, re.IGNORECASE))
    if not places:
        raise GPT1Error(f"the pronoun {pronoun!r} is not in the sentence {sentence!r}")
    mentioned = max(sentence.lower().find(candidate.lower()) for candidate in candidates)
    place = next((place for place in places if place.start() > mentioned), places[0])
    return sentence[: place.start()], sentence[place.end() :]


@dataclass(frozen=True)
class Heuristic:
    """
    How a task is answered without training, and the ends of Figure 2's scale ("normalized between a random guess
    baseline and the current state-of-the-art with a single model").
    """

    answer: Callable[[Scorer, Dataset], Answers]
    label: str  # the paper's name of the task in the figure
    split: str  # scored by default
    random_guess: float  # score in percent: 0 on the scale
    source: str  # of the best supervised result of that time; empty where the task has no place on the scale
    best: float | None = None  # that result in percent: 1 on the scale; by default, the paper's own number
    classes: tuple[int, ...] = (0, 1)  # class id of each of two answers, where the task numbers them otherwise


HEURISTICS = {
    "cola": Heuristic(
        score_sentences, "linguistic acceptability", "validation", 0.0, "GPT-1 fine-tuned, paper Table 4 (test)"
    ),
    "dpr": Heuristic(
        score_referents,
        "Winograd schema resolution",
        "train",  # the larger split; nothing is trained on it
        50.0,
        "Peng, Khashabi and Roth (2015), Solving Hard Coreference Problems (test)",
        76.4,
    ),
    "race": Heuristic(
        score_answers, "question answering", "validation", 25.0, "GPT-1 fine-tuned, paper Table 3 (test)"
    ),
    "sst2": Heuristic(
        score_sentiments, "sentiment analysis", "validation", 50.0, "sparse byte mLSTM, paper Table 4 (test)", 93.2
    ),
}


# What two classes are called -> the task whose heuristic tells them apart. The first is the class 0 of that task.
CLASS_NAMES = {
    ("negative", "positive"): "sst2",
    ("neg", "pos"): "sst2",
    ("unacceptable", "acceptable"): "cola",
}


def heuristic_of(task: Task) -> Heuristic:
    """
    The heuristic that answers a task.

    A multiple choice is answered as RACE is, and a classification with the classes of SST-2 or CoLA as these are.

    Args:
        task ([`Task`]):
            Task, resolved.

    Raises:
        UsageError: if the paper has no heuristic for such a task.
    """
    if task.id in HEURISTICS:
        return HEURISTICS[task.id]
    if task.input_format == "multiple_choice":
        return Heuristic(score_answers, task.id, "validation", 100 / len(task.label_names), source="")
    if task.input_format == "classification" and task.labels == "classes":
        own = [name.strip().casefold() for name in task.label_names]
        for names, known in CLASS_NAMES.items():
            if sorted(own) == sorted(names):
                classes = tuple(own.index(name) for name in names)
                return replace(HEURISTICS[known], label=task.id, source="", best=None, classes=classes)
    raise UsageError(
        f"there is no zero-shot heuristic for task {task.id}: only {', '.join(HEURISTICS)}, multiple choices, and "
        f"classifications with the labels {' or '.join('/'.join(names) for names in CLASS_NAMES)} have one"
    )


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """
    Find the threshold that divides scores into two classes best.

    Args:
        scores (`np.ndarray` of shape `(n,)`):
            Scores.
        labels (`np.ndarray` of shape `(n,)`):
            Classes: 1 for the rows that should be above the threshold.

    Returns:
        `tuple[float, float]`: the threshold with the highest Matthews correlation, halfway between two scores; and
        that correlation, in percent.

    Raises:
        GPT1Error: if all scores are equal.
    """
    order = np.argsort(scores, kind="stable")
    scores, labels = scores[order], labels[order].astype(np.float64)
    n, positive = len(labels), labels.sum()
    above = np.arange(n - 1, 0, -1.0)  # rows above a cut after the first, the second, ... row
    hits = positive - labels.cumsum()[:-1]
    spread = above * (n - above) * positive * (n - positive)
    # (TP·TN − FP·FN) / √(...), in terms of the rows above and the hits among them
    correlation = (n * hits - above * positive) / np.sqrt(np.where(spread > 0, spread, np.inf))
    possible = np.flatnonzero(scores[1:] > scores[:-1])
    if not len(possible):
        raise GPT1Error("all training rows have the same score, so no threshold divides them: score more rows")
    best = possible[correlation[possible].argmax()]
    return float((scores[best] + scores[best + 1]) / 2), 100 * float(correlation[best])


def split_name(name: str) -> tuple[str, str | None]:
    """
    A task's id or file, and a subset of it: `race:middle` has the subset `middle`, and `race` none.

    Raises:
        UsageError: if the task has no such subset.
    """
    own, colon, subset = str(name).rpartition(":")
    if not colon or name.endswith((".yaml", ".yml")):  # the colon may be part of a path
        return str(name), None
    subsets = load_task(own).subsets
    if subset not in subsets:
        known = f"choose one of {', '.join(subsets)}" if subsets else f"give {own}"
        raise UsageError(f"task {own} has no subset {subset!r}{nearest(subset, subsets) or '; ' + known}")
    return own, subset


def named_task(name: str) -> Task:
    """The task of a name that may end in a subset, see [`split_name`]; not resolved."""
    return load_task(split_name(name)[0])


@dataclass
class ZeroShotArguments:
    """A language model, and a task that it was not trained for."""

    model: str = field(default="gpt1-tiny", metadata={"help": "Language model: folder, Hub id, or gpt1-tiny."})
    tokenizer: str | None = field(default=None, metadata={"help": "Tokenizer, if the model's folder has none."})
    task: str | None = field(
        default=None,
        metadata={
            "help": "Task id: cola, dpr, race, sst2; or a YAML file. Append a subset to score it alone: race:middle."
        },
    )
    split: str | None = field(
        default=None,
        metadata={"help": "Split to score. Default: validation; train for dpr, which has no validation split."},
    )
    sample: bool = field(default=False, metadata={"help": "Score the small labelled sample in the package."})
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    max_examples: int | None = field(
        default=None, metadata={"help": "Score this many rows, evenly spaced in the split. Default: all."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest sequence in tokens. Default: the model's context."}
    )
    batch_size: int = field(default=16, metadata={"help": "Rows per forward pass."})
    output_dir: str | None = field(
        default=None,
        metadata={
            "help": "Where results.json and predictions.jsonl are written. Default: "
            "runs/zero_shot/<task>/<model>, and a folder below it for each --split."
        },
    )

    def __post_init__(self):
        if self.output_dir is None:
            sample = "sample" if self.sample else None
            parts = (self.tokenizer, self.split, sample)
            name, subset = split_name(self.task) if self.task else (None, None)
            parts = (*parts, subset)
            self.output_dir = default_folder("zero_shot", name and Path(name).stem, self.model, *parts)
        check_ranges(self, {"max_examples": (1, NO_LIMIT), "max_length": (2, NO_LIMIT), "batch_size": (1, NO_LIMIT)})


def zero_shot(args: ZeroShotArguments) -> list[Result]:
    """
    Score a language model on a task without training, and write `results.json` and `predictions.jsonl`.

    Returns:
        list of [`Result`]: for the split and each of its subsets, the task's metric and, for the tasks of Figure 2,
        the same on that figure's scale, each with its interval (see [`with_intervals`]). Empty if the labels are
        hidden.

    Raises:
        GPT1Error: if the task has no heuristic, or the model or the data are missing.
    """
    if not args.task:
        raise UsageError(f"zero-shot needs --task, one of {', '.join(HEURISTICS)}, or a YAML file")
    task = named_task(args.task).resolved(args.data_dir)
    heuristic_of(task)
    check_writable(args.output_dir)
    scorer = open_scorer(args)
    results, predictions = answer(scorer, args)
    write_predictions(args.output_dir, predictions)
    path = write_results(args.output_dir, results)
    if not results:
        note(f"the labels of {task.id} ({', '.join(predictions)}) are hidden: predictions without a metric")
    print(format_results(results))
    note(f"written to {path}")
    return results


def open_scorer(args: ZeroShotArguments) -> Scorer:
    """Load model and tokenizer, on the accelerator if there is one."""
    tokenizer, model = open_tokenizer(args.tokenizer or args.model), open_causal_lm(args.model).to(compute_device())
    check_tokenizer(model.config, tokenizer, args.model)
    window = args.max_length or getattr(model.config, "max_position_embeddings", 512)
    return Scorer(model, tokenizer, window, args.batch_size)


def scored_rows(args: ZeroShotArguments) -> tuple[str, Dataset]:
    """Name of the split to score, and its rows."""
    name, subset = split_name(args.task)
    task = load_task(name).resolved(args.data_dir)
    split = args.split or ("validation" if args.sample else heuristic_of(task).split)
    split = f"{split}_{subset}" if subset else split
    rows = task.load(split, args.data_dir, args.sample)
    return split, rows.select(evenly_spaced(len(rows), args.max_examples))


def answer(scorer: Scorer, args: ZeroShotArguments) -> tuple[list[Result], dict[str, list[dict[str, Any]]]]:
    """Score a split of a task. Returns its results, and its predictions as `gpt1 evaluate` writes them."""
    task = named_task(args.task).resolved(args.data_dir)
    heuristic = heuristic_of(task)
    split, rows = scored_rows(args)
    answers = heuristic.answer(scorer, rows)
    details = answers.details
    if heuristic.answer is score_sentences:
        _, train = scored_rows(replace(args, split="train"))
        (train_scores,) = zip(*heuristic.answer(scorer, train).scores, strict=True)
        is_above = np.array(train["label"][:]) == heuristic.classes[1]
        threshold, reached = best_threshold(np.array(train_scores), is_above)
        details |= {"threshold": round(threshold, 4), "train_rows": len(train), "train_value": round(reached, 2)}
        chosen = [heuristic.classes[int(sentence > threshold)] for (sentence,) in answers.scores]
    else:
        if heuristic.answer is score_sentiments:  # in the order of the task's classes
            answers.scores = [[row[heuristic.classes.index(number)] for number in (0, 1)] for row in answers.scores]
        chosen = [int(np.argmax(row)) for row in answers.scores]
    n_cut, n_nothing = sum(answers.cut), sum(not all(map(math.isfinite, row)) for row in answers.scores)
    if n_cut:
        logger.warning(f"{n_cut} of {len(rows)} rows were longer than {scorer.window} tokens and lost their beginning")
    if n_nothing:
        logger.warning(f"{n_nothing} of {len(rows)} rows have a text without a token to score")
    columns = {
        "id": rows["idx"][:],
        "label": rows["label"][:],
        "prediction": chosen,
        "scores": [[value if math.isfinite(value) else None for value in row] for row in answers.scores],
        "truncated": answers.cut,
    }
    if "subset" in rows.column_names:
        columns["subset"] = rows["subset"]
    predictions = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    predictions = with_documents(predictions, rows)
    details |= {
        "method": "zero-shot",
        "predicted": {str(k): chosen.count(k) for k in sorted(set(chosen))},
        "truncated": n_cut,
        "window": scorer.window,
        "precision": precision_of(scorer.model),
        "sample": args.sample,
        "max_examples": args.max_examples,
        "max_length": args.max_length,
        "rows_digest": rows_digest(rows),
    }
    results = []
    for result in task_results(task, split, predictions, model=args.model, seed=None, details=details):
        best = heuristic.best or result.paper
        # The paper shows zero-shot numbers only as curves; the numbers in its tables are of fine-tuned models.
        result = replace(result, paper=None, prior=None)
        if not heuristic.source:
            results.append(result)
            continue
        scale = {"random_guess": heuristic.random_guess, "best_supervised": best, "source": heuristic.source}
        result = replace(result, details={**result.details, **scale})
        relative = round(on_scale(result.value, result.details), 4)
        results += [result, replace(result, metric=RELATIVE, value=relative)]
    return with_intervals(results, task, predictions), {split: predictions}


def on_scale(value: float, details: dict[str, Any]) -> float:
    """A score in percent on Figure 2's scale, whose ends are in the details of its result."""
    low, high = details["random_guess"], details["best_supervised"]
    return (value - low) / (high - low)


def with_intervals(results: Sequence[Result], task: Task, predictions: Sequence[dict[str, Any]]) -> list[Result]:
    """
    Add to the details of results: `interval`, the 95 % interval by a bootstrap over the rows, or over the documents
    that they share; `resamples`, the number of its resamples; `resampled`, which is `documents` if these are drawn;
    and `chance`, the score of a random choice or of the best constant answer.

    Args:
        results (list of [`Result`]):
            Results of [`answer`].
        task ([`Task`]):
            Task, resolved.
        predictions (list of `dict`):
            Predictions of the rows that were scored.
    """
    n_choices = len(task.label_names) if "choices" in task.columns else None
    found = []
    for result in results:
        metric, (labels, chosen) = metric_of(result, task), answers_of(result, task, predictions)
        documents = documents_of(result, task, predictions)
        numbers = [*score_interval(metric, chosen, labels, documents), chance(metric, labels, n_choices)]
        low, high, base = (rounded(number, result) for number in numbers)
        details = {"interval": [low, high], "resamples": RESAMPLES, "chance": base}
        if documents is not None:
            details["resampled"] = "documents"
        found.append(replace(result, details={**result.details, **details}))
    return found


def metric_of(result: Result, task: Task) -> str:
    """The metric that a result is in, or on whose scale it is."""
    return task.metric if result.metric == RELATIVE else result.metric


def answers_of(result: Result, task: Task, predictions: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predicted classes of the rows that a result is about: all, or those of its subset."""
    rows = rows_of(result, task, predictions)
    labels, chosen = (np.array([row[column] for row in rows]) for column in ("label", "prediction"))
    return labels, chosen


def documents_of(result: Result, task: Task, predictions: Sequence[dict[str, Any]]) -> np.ndarray | None:
    """Number of the document of each row that a result is about; `None` if no two rows share one, or all do."""
    numbers = np.array([row.get("document", -1) for row in rows_of(result, task, predictions)])
    return numbers if numbers.min() >= 0 and 1 < len(np.unique(numbers)) < len(numbers) else None


def rows_of(result: Result, task: Task, predictions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that a result is about: all, or those of its subset."""
    _, _, subset = result.split.partition("_")
    return [row for row in predictions if subset not in task.subsets or row.get("subset", subset) == subset]


def with_documents(predictions: Sequence[dict[str, Any]], rows: Dataset) -> list[dict[str, Any]]:
    """Add `document` to predictions, the number of the row's document, if the rows have documents."""
    if "document" not in rows.column_names:
        return list(predictions)
    texts = rows["document"][:]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return [{**row, "document": numbers[text]} for row, text in zip(predictions, texts, strict=True)]


def rounded(percent: float, result: Result) -> float:
    """A score in percent as `results.json` has it; on Figure 2's scale, if the result is."""
    return round(on_scale(percent, result.details), 4) if result.metric == RELATIVE else round(percent, 2)
