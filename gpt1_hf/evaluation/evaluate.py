"""`gpt1 evaluate`: score a fine-tuned model on a task, or a language model on text."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..checkpoints.loading import compute_device, open_causal_lm, open_config, open_tokenizer
from ..console import note
from ..data.loading import evenly_spaced
from ..errors import GPT1Error, UsageError
from ..files import check_writable, default_folder
from ..settings import NO_LIMIT, check_ranges, default_data_dir
from ..tasks import Task, load_task
from ..training_record import (
    check_rows,
    check_tokenizer,
    row_length,
    rows_digest,
    scored_batch_size,
    trained_on,
)
from .overlap import in_corpus, row_overlap, row_texts, with_overlap
from .perplexity import score_documents
from .precision import precision_of
from .program import ScoredProgram
from .results import Result, format_results, write_results
from .task_scores import (
    HELD_OUT_SPLIT,
    check_supervised,
    encode_rows,
    hold_out,
    load_scored,
    open_fine_tuned,
    predict,
    resolve_for_model,
    task_results,
    write_predictions,
)


RANGES = {
    "stride": (1, NO_LIMIT),
    "max_characters": (1, NO_LIMIT),
    "max_length": (2, NO_LIMIT),
    "max_examples": (1, NO_LIMIT),
    "batch_size": (1, NO_LIMIT),
}


@dataclass
class EvaluateArguments:
    """Settings of `gpt1 evaluate`."""

    model: str = field(default="gpt1-tiny", metadata={"help": "Model: folder, Hub id, or gpt1-tiny."})
    task: str | None = field(
        default=None, metadata={"help": "Task id or YAML file. The model must be fine-tuned for it."}
    )
    text_file: str | None = field(
        default=None,
        metadata={"help": "Text to compute perplexity and bits per character on; see --corpus of `gpt1 pretrain`."},
    )
    corpus_column: str = field(default="text", metadata={"help": "Column that holds the text, if text_file has rows."})
    corpus_config: str | None = field(
        default=None, metadata={"help": "Configuration of a text_file on the Hub; in a local copy, a sub-folder."}
    )
    split: str | None = field(
        default=None,
        metadata={
            "help": "Split of the task or text, such as test or validation_matched. Default: validation, and test for "
            "Story Cloze."
        },
    )
    sample: bool = field(
        default=False, metadata={"help": "Score the small labelled sample that comes with the package."}
    )
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    stride: int | None = field(
        default=None,
        metadata={"help": "Number of new tokens to score in each window of text. Default: all but the first."},
    )
    max_characters: int | None = field(
        default=None, metadata={"help": "Score only this many characters from the start of the text. Default: all."}
    )
    max_length: int | None = field(
        default=None,
        metadata={"help": "Maximum length of a row or a window of text, in tokens. Default: the model's context."},
    )
    max_examples: int | None = field(
        default=None, metadata={"help": "Score at most this many rows or documents, evenly spaced. Default: all."}
    )
    check_overlap: bool = field(
        default=False,
        metadata={
            "help": "For a task, count the rows that are also in its train split, and also score only the others. "
            "With --train_text, also measure the overlap with that text."
        },
    )
    train_text: str | None = field(
        default=None,
        metadata={
            "help": "Training text of the language model, for --check_overlap, in any form that --text_file takes."
        },
    )
    batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Number of rows or windows in a forward pass. Default: that of the scoring after fine-tuning, so "
            "that the scores are rounded alike, or 16."
        },
    )
    output_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder for results.json. Default: runs/evaluate/<task or text>/<model>, with a subfolder for "
            "--split or --sample."
        },
    )

    def __post_init__(self):
        check_ranges(self, RANGES)
        if self.output_dir is None:
            sample = "sample" if self.sample else None
            measured = Path(self.task).stem if self.task else self.text_file
            self.output_dir = default_folder("evaluate", measured, self.model, self.split, sample)
        if self.sample and self.text_file:
            raise UsageError("--sample needs a task: replace --text_file with --task, or drop --sample")


def evaluate(args: EvaluateArguments) -> list[Result]:
    """
    Score a model on a task or on text, print the results and write `results.json`, and `predictions.jsonl` for a task.

    Raises:
        UsageError: if the settings contradict each other, such as both `task` and `text_file`.
        GPT1Error: if the model does not fit the task or the text, or the data cannot be read.
    """
    if (args.task is None) == (args.text_file is None):
        raise UsageError("evaluate takes either --task or --text_file: give exactly one of them")
    if args.train_text and not args.check_overlap:
        raise UsageError("--train_text is only used by --check_overlap: give both, or drop --train_text")
    if args.check_overlap and args.text_file and not args.train_text:
        raise UsageError("--check_overlap on text needs --train_text, the text that the model was trained on")
    check_writable(args.output_dir)
    results = compute_results(args)
    print(format_results(results))
    note(f"written to {write_results(args.output_dir, results)}")
    return results


def compute_results(args: EvaluateArguments, program: ScoredProgram | None = None) -> list[Result]:
    """
    Score as [`evaluate`] does, without printing or writing the results. Writes `predictions.jsonl` for a task.

    Args:
        args ([`EvaluateArguments`]):
            Settings, with the model.
        program ([`ScoredProgram`], *optional*):
            Program exported from that model, to be scored in its place.
    """
    return _evaluate_text(args, program) if args.task is None else _evaluate_task(args, program)


def _evaluate_text(args: EvaluateArguments, program: ScoredProgram | None) -> list[Result]:
    from ..data.corpus import corpus_path, read_documents, text_files
    from ..data.token_stream import encode_blocks

    if args.split and text_files(args.text_file, args.data_dir, args.corpus_config):
        raise UsageError(f"{args.text_file} is plain text and has no splits: drop --split")
    split = args.split or "validation"
    sizes = []  # of the documents that were read, in characters

    def read() -> Iterator[str]:
        for text in read_documents(args.text_file, split, args.data_dir, args.corpus_column, args.corpus_config):
            sizes.append(len(text))
            yield text

    texts = read()
    documents = first_characters(texts, args.max_characters)
    if not documents:
        raise GPT1Error(f"{args.text_file} is empty: give a file that contains text")
    is_local = corpus_path(args.text_file, args.data_dir, args.corpus_config).exists()
    if is_local:  # a text on the Hub may be too long to read for its size
        deque(texts, maxlen=0)
    n_documents = len(documents)
    documents = [documents[index] for index in evenly_spaced(n_documents, args.max_examples)]
    overlap = {"overlap": in_corpus(args.train_text, documents, args.data_dir)} if args.check_overlap else {}
    tokenizer, model = open_tokenizer(args.model), open_causal_lm(args.model).to(compute_device())
    check_tokenizer(model.config, tokenizer, args.model)
    window = args.max_length or getattr(model.config, "max_position_embeddings", 512)
    encoded = (
        (np.fromiter(chain.from_iterable(encode_blocks(tokenizer, text)), np.int64), len(text)) for text in documents
    )
    batch_size = args.batch_size or scored_batch_size(model.config)
    text_score = score_documents(program or model, encoded, window, args.stride, batch_size)
    details = {"text": args.text_file, "window": window, "stride": args.stride or window - 1}
    details |= {"scored_tokens": text_score.n_text_tokens, "scored_characters": text_score.n_chars}
    if is_local:
        details["text_characters"] = sum(sizes)
    if text_score.n_chars < sum(sizes):
        details["partial"] = True
    details["precision"] = program.precision if program else precision_of(model)
    if text_score.n_documents != n_documents:
        details["rows_of_split"] = n_documents
    if args.max_characters is not None:
        details["max_characters"] = args.max_characters
    details |= overlap
    common = {
        "task": "language_modeling",
        "split": split,
        "n_examples": text_score.n_documents,
        "paper": None,
        "model": args.model,
        "seed": None,
        "details": details,
    }
    return [
        Result(metric="perplexity", value=round(text_score.perplexity, 3), **common),
        Result(metric="bits_per_character", value=round(text_score.bits_per_character, 4), **common),
    ]


def first_characters(documents: Iterable[str], n: int | None) -> list[str]:
    """The first documents up to `n` characters in total, the last one cut; all documents if `n` is `None`."""
    chosen: list[str] = []
    for document in documents:
        left = None if n is None else n - sum(map(len, chosen))
        if left == 0:
            break
        chosen.append(document[:left])
    return chosen


def _evaluate_task(args: EvaluateArguments, program: ScoredProgram | None) -> list[Result]:
    task = load_task(args.task)
    check_supervised(task)
    task = resolve_for_model(task, open_config(args.model), args.data_dir)
    model, processor = open_fine_tuned(args.model, task)
    record = trained_on(model.config)
    rows = scored_rows(args, task, record)
    rows = {split: part.select(evenly_spaced(len(part), args.max_examples)) for split, part in rows.items()}
    digests = {split: rows_digest(part) for split, part in rows.items()}
    if args.max_examples == record.get("max_eval_examples") and record.get("sample") == args.sample:
        held_out = {"validation": task.files.get("train", "")} if task.validation_share else {}
        check_rows(record, digests, args.model, {**task.files, **held_out})
    max_length = args.max_length or row_length(model.config, processor.tokenizer)
    encoded = {split: encode_rows(part, processor, max_length) for split, part in rows.items()}
    batch_size = args.batch_size or scored_batch_size(model.config)
    scored = program or model
    predictions = {split: predict(scored, processor, task, rows[split], encoded[split], batch_size) for split in rows}
    write_predictions(args.output_dir, predictions)
    not_run = [] if args.split else [split for split in task.scored_splits if split not in rows]
    details: dict[str, Any] = {"sample": args.sample, "max_examples": args.max_examples, "not_run": not_run}
    details["precision"] = program.precision if program else precision_of(model)
    if "tokenizer" in record:
        details["tokenizer"] = record["tokenizer"]
    if "task" in record:
        details["trained_on"] = record["task"]
    results = []
    for split, answered in predictions.items():
        own_details = {**details, "rows_digest": digests[split]}
        scored = task_results(task, split, answered, args.model, record.get("seed"), own_details)
        if not scored:
            note(f"the labels of {task.id} ({split}) are hidden: predictions are written without a metric")
        elif args.check_overlap:
            scored = _check_overlap(args, task, split, rows[split], answered, scored)
        results += scored
    return results


def scored_rows(args: EvaluateArguments, task: Task, record: dict[str, Any]) -> dict[str, Dataset]:
    """
    Split -> rows to score. The split `held-out train` is the share of the training rows that the model's fine-tuning
    held out.

    Raises:
        UsageError: if that share is asked for, and the fine-tuning held nothing out.
    """
    if args.split != HELD_OUT_SPLIT:
        return load_scored(task, args.data_dir, args.sample, args.split)
    if "held_out_share" not in record:
        raise UsageError(
            f"model {args.model!r} was not fine-tuned with a held_out_share: give --split validation, or leave it out"
        )
    train = task.load("train", args.data_dir, args.sample)
    return {HELD_OUT_SPLIT: hold_out(train, record["held_out_share"])[1]}


def _check_overlap(
    args: EvaluateArguments,
    task: Task,
    split: str,
    rows: Dataset,
    predictions: list[dict[str, Any]],
    results: list[Result],
) -> list[Result]:
    """Add the overlap with the training data to the results of a split."""
    train = task.load("train", args.data_dir, args.sample)
    overlap = row_overlap(train, rows, task.input_format)
    unseen = [row for row, is_seen in zip(predictions, overlap.whole, strict=True) if not is_seen]
    results_unseen = task_results(task, split, unseen, args.model, seed=None, details={}) if unseen else []
    more = {"train_rows": len(train)}
    if args.train_text:
        more |= in_corpus(args.train_text, row_texts(rows, task.input_format), args.data_dir)
    return with_overlap(results, overlap, results_unseen, more)
