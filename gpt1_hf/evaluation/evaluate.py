"""`gpt1 evaluate`: a fine-tuned model on a task, or a language model on text."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from ..checkpoints.loading import compute_device, open_causal_lm, open_tokenizer
from ..console import note
from ..data.sampling import spaced
from ..errors import GPT1Error, UsageError
from ..files import check_writable, default_folder
from ..settings import NO_LIMIT, check_ranges, default_data_dir
from ..tasks import load_task
from ..training_record import check_rows, check_tokenizer, row_length, rows_digest, trained_on
from .overlap import in_corpus, row_overlap, row_texts, with_overlap
from .perplexity import score_documents
from .results import Result, format_results, write_results
from .task_scores import (
    check_supervised,
    encode_rows,
    load_scored,
    open_fine_tuned,
    predict,
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
    """One evaluation: of a fine-tuned model on a task, or of a language model on text."""

    model: str = field(default="gpt1-tiny", metadata={"help": "Model: folder, Hub id, or gpt1-tiny."})
    task: str | None = field(default=None, metadata={"help": "Task id; the model must be fine-tuned for it."})
    text_file: str | None = field(
        default=None, metadata={"help": "Text: perplexity and bits per character. As --corpus of `gpt1 pretrain`."}
    )
    split: str | None = field(
        default=None,
        metadata={
            "help": "Split of the task, such as test or validation_matched, or of the text. Default: validation; of "
            "Story Cloze also test."
        },
    )
    sample: bool = field(default=False, metadata={"help": "Score the small labelled sample in the package."})
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    stride: int | None = field(
        default=None, metadata={"help": "Tokens newly scored in each window of text. Default: all but the first."}
    )
    max_characters: int | None = field(
        default=None, metadata={"help": "Score the first so many characters of the text. Default: all."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest row, or window of text, in tokens. Default: the model's context."}
    )
    max_examples: int | None = field(
        default=None, metadata={"help": "Score so many rows or documents, evenly spaced. Default: all."}
    )
    check_overlap: bool = field(
        default=False,
        metadata={
            "help": "Of a task: find rows that stand in its train split, and score the others by themselves, too. "
            "With --train_text, and of text: find what stands in that."
        },
    )
    train_text: str | None = field(
        default=None, metadata={"help": "With check_overlap: text that the language model learnt from, as --corpus."}
    )
    batch_size: int = field(default=16, metadata={"help": "Rows or windows per forward pass."})
    output_dir: str | None = field(
        default=None,
        metadata={
            "help": "Where results.json is written. Default: runs/evaluate/<task or text>/<model>, and below it for "
            "--split."
        },
    )

    def __post_init__(self):
        check_ranges(self, RANGES)
        if self.output_dir is None:
            sample = "sample" if self.sample else None
            self.output_dir = default_folder("evaluate", self.task or self.text_file, self.model, self.split, sample)
        if self.sample and self.text_file:
            raise UsageError("sample is a task's: give --task in place of --text_file, or drop it")


def evaluate(args: EvaluateArguments) -> list[Result]:
    """
    Score a model on a task or on text, and write `results.json` (and, of a task, `predictions.jsonl`).

    Raises:
        GPT1Error: if neither or both of `task` and `text_file` are given, or the model does not fit.
    """
    if (args.task is None) == (args.text_file is None):
        raise UsageError("evaluate needs either --task or --text_file")
    if args.train_text and not args.check_overlap:
        raise UsageError("train_text is what check_overlap looks in: give --check_overlap, too")
    if args.check_overlap and args.text_file and not args.train_text:
        raise UsageError("check_overlap of text needs --train_text, the text that the model learnt from")
    check_writable(args.output_dir)
    results = measure(args)
    print(format_results(results))
    note(f"written to {write_results(args.output_dir, results)}")
    return results


def measure(args: EvaluateArguments) -> list[Result]:
    """[`evaluate`] without the table and `results.json`."""
    return _evaluate_text(args) if args.task is None else _evaluate_task(args)


def _evaluate_text(args: EvaluateArguments) -> list[Result]:
    from ..data.token_stream import encode_blocks, read_documents, text_files

    if args.split and text_files(args.text_file, args.data_dir):
        raise UsageError(
            f"split is a data set's: {args.text_file} is plain text, all of which is scored; drop --split"
        )
    split = args.split or "validation"
    documents = first_characters(read_documents(args.text_file, split, args.data_dir), args.max_characters)
    if not documents:
        raise GPT1Error(f"{args.text_file} is empty: it has no text to score")
    n_documents = len(documents)
    documents = [documents[index] for index in spaced(n_documents, args.max_examples)]
    overlap = {"overlap": in_corpus(args.train_text, documents, args.data_dir)} if args.check_overlap else {}
    tokenizer, model = open_tokenizer(args.model), open_causal_lm(args.model).to(compute_device())
    check_tokenizer(model.config, tokenizer, args.model)
    window = args.max_length or getattr(model.config, "max_position_embeddings", 512)
    encoded = (
        (np.fromiter(chain.from_iterable(encode_blocks(tokenizer, text)), np.int64), len(text)) for text in documents
    )
    text_score = score_documents(model, encoded, window, args.stride, args.batch_size)
    cut = {} if args.max_characters is None else {"max_characters": args.max_characters}
    common = {
        "task": "language_modeling",
        "split": split,
        "n_examples": text_score.n_documents,
        "paper": None,
        "model": args.model,
        "seed": None,
        "details": {
            "text": args.text_file,
            "window": window,
            "stride": args.stride or window - 1,
            **({} if text_score.n_documents == n_documents else {"rows_of_split": n_documents}),
            **cut,
            **overlap,
        },
    }
    return [
        Result(metric="perplexity", value=round(text_score.perplexity, 3), **common),
        Result(metric="bits_per_character", value=round(text_score.bits_per_character, 4), **common),
    ]


def first_characters(documents: Iterable[str], n: int | None) -> list[str]:
    """Documents up to a number of characters, the last of them cut; all, if that is `None`."""
    chosen: list[str] = []
    for document in documents:
        left = None if n is None else n - sum(map(len, chosen))
        if left == 0:
            break
        chosen.append(document[:left])
    return chosen


def _evaluate_task(args: EvaluateArguments) -> list[Result]:
    task = load_task(args.task)
    check_supervised(task)
    model, processor = open_fine_tuned(args.model, task)
    record = trained_on(model.config)
    rows = load_scored(task, args.data_dir, args.sample, args.split)
    rows = {split: rows[split].select(spaced(len(rows[split]), args.max_examples)) for split in rows}
    digests = {split: rows_digest(rows[split]) for split in rows}
    if not args.max_examples and record.get("sample") == args.sample:
        check_rows(record, digests, args.model)
    max_length = args.max_length or row_length(model.config, processor.tokenizer)
    encoded = {split: encode_rows(rows[split], processor, max_length) for split in rows}
    predictions = {
        split: predict(model, processor, task, rows[split], encoded[split], args.batch_size) for split in rows
    }
    write_predictions(args.output_dir, predictions)
    not_run = [] if args.split else [split for split in task.scored_splits if split not in rows]
    details = {"sample": args.sample, "max_examples": args.max_examples, "not_run": not_run}
    details |= {name: record[name] for name in ("tokenizer",) if name in record}
    details |= {"trained_on": record["task"]} if "task" in record else {}
    results, seed = [], record.get("seed")
    for split in predictions:
        found = {**details, "rows_digest": digests[split]}
        scored = task_results(task, split, predictions[split], model=args.model, seed=seed, details=found)
        if not scored:
            note(f"the labels of {task.id} ({split}) are hidden: predictions without a metric")
        if args.check_overlap and scored:
            train = task.load("train", args.data_dir, args.sample)
            overlap = row_overlap(train, rows[split], task.input_format)
            found = {**found, "sample": True}  # it is marked as a part of the split already
            others = [row for row, is_seen in zip(predictions[split], overlap.whole, strict=True) if not is_seen]
            clean = task_results(task, split, others, args.model, seed, found) if others else []
            more = {"train_rows": len(train)}
            if args.train_text:
                texts = row_texts(rows[split], task.input_format)
                more |= in_corpus(args.train_text, texts, args.data_dir)
            scored = with_overlap(scored, overlap, clean, more)
        results += scored
    return results
