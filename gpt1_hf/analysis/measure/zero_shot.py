"""Score the checkpoints of pre-training runs on the zero-shot tasks (the paper's Figure 2, right)."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ...checkpoints.loading import open_config
from ...configuration_gpt1_lstm import GPT1LSTMConfig
from ...console import note
from ...errors import GPT1Error, UsageError
from ...evaluation.bootstrap import paired_difference
from ...evaluation.results import Result, interval_text, write_results
from ...evaluation.task_scores import write_predictions
from ...settings import default_data_dir
from ...tasks import Task
from ...training.snapshots import FOLDER
from ...training_record import rows_digest
from ..report.analyses.zero_shot import asked_for, curve_name, section
from ..report.runs import CollectedRun
from ..report.sections import write_section
from ..zero_shot import (
    HEURISTICS,
    RELATIVE,
    Scorer,
    ZeroShotArguments,
    answer,
    answers_of,
    documents_of,
    heuristic_of,
    metric_of,
    named_task,
    open_scorer,
    scored_rows,
    split_name,
    with_documents,
    with_intervals,
)


REQUIRED = [("run", "lstm_run")]

Predictions = Sequence[dict[str, Any]]  # of the rows of a split, as `predictions.jsonl` has them


@dataclass
class Arguments:
    """Pre-training runs, and the tasks to score their checkpoints on."""

    run: str | None = field(
        default=None,
        metadata={
            "help": "Folder of a pre-training run. Its final model is scored, and so are its checkpoints: those that "
            "--checkpoints_per_decade kept or, without them, the folders whose names end in -UPDATES."
        },
    )
    lstm_run: str | None = field(default=None, metadata={"help": "Folder of an LSTM's run, drawn dashed."})
    tasks: list[str] = field(
        default_factory=lambda: list(HEURISTICS),
        metadata={"help": "Task ids or YAML files. Append a subset to score it alone: race:middle."},
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Tokenizer. Default: the checkpoint's or, if it has none, the run's."}
    )
    sample: bool = field(default=False, metadata={"help": "Score the small labelled samples in the package."})
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    max_examples: int | None = field(
        default=None, metadata={"help": "Score this many rows of each task, evenly spaced. Default: all."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Longest sequence in tokens. Default: the model's context."}
    )
    batch_size: int = field(default=16, metadata={"help": "Rows per forward pass."})
    output_dir: str = field(
        default="runs/analysis/zero_shot",
        metadata={"help": "Where results.json, analysis.md and its figure are written."},
    )


def measure(args: Arguments) -> list[Result]:
    """
    Score every checkpoint of one or two pre-training runs on the zero-shot tasks, and draw the curves.

    Scores of an earlier call with the same settings are kept, so that a run can be followed while it trains.

    Returns:
        list of [`Result`], with `run`, `updates` and `architecture` in their details. After a run's first checkpoint,
        they also have `change`, the difference from that one with its interval. `<output_dir>/results.json` holds the
        same.

    Raises:
        GPT1Error: if a run has no checkpoints or a task has no heuristic.
    """
    runs = [run for run in (args.run, args.lstm_run) if run]
    if not runs:
        raise UsageError("analyze zero-shot needs --run, the folder of a pre-training run")
    for task in args.tasks:
        heuristic_of(named_task(task).resolved(args.data_dir))
    points = [(architecture_of(run), run, updates, folder) for run in runs for updates, folder in checkpoints(run)]
    architectures = {architecture for architecture, *_ in points}
    if len(architectures) < len(runs):
        raise GPT1Error(
            f"{args.run} and {args.lstm_run} are both of architecture {architectures.pop()}: give a transformer's run "
            "as --run and an LSTM's as --lstm_run"
        )

    results: list[Result] = []
    firsts: dict[tuple[str, str], tuple[int, Predictions]] = {}  # of each run and task
    for architecture, run, updates, folder in points:
        note(f"{architecture}, {updates:,} updates: {folder}")
        has_tokenizer = (folder / "tokenizer.json").is_file()
        common = ZeroShotArguments(
            model=str(folder),
            tokenizer=args.tokenizer or (None if has_tokenizer else run),
            sample=args.sample,
            data_dir=args.data_dir,
            max_examples=args.max_examples,
            max_length=args.max_length,
            batch_size=args.batch_size,
        )
        own_dir = Path(args.output_dir) / "checkpoints" / f"{architecture}-{updates}"
        for name, (found, predictions) in score_checkpoint(common, args.tasks, own_dir).items():
            task = named_task(name).resolved(args.data_dir)
            since, first = firsts.setdefault((architecture, name), (updates, predictions))
            for result in found:
                details = {**result.details, "architecture": architecture, "run": run, "updates": updates}
                if updates > since:
                    details["change"] = {"since": since, **change(result, task, first, predictions)}
                results.append(replace(result, details=details))
    print(table(results))
    write_results(args.output_dir, results)
    path = write_section(section([CollectedRun("zero-shot", results)]), args.output_dir)
    note(f"written to {path}")
    return results


def architecture_of(run: str) -> str:
    """`transformer` or `lstm`."""
    _, folder = checkpoints(run)[0]
    return "lstm" if isinstance(open_config(str(folder)), GPT1LSTMConfig) else "transformer"


def checkpoints(run: str) -> list[tuple[int, Path]]:
    """
    The models of a pre-training run: number of updates and folder, in the order of training.

    Raises:
        GPT1Error: if there are none.
    """
    if not Path(run).is_dir():
        raise GPT1Error(f"there is no folder {run!r}: give the folder of a pre-training run")
    found = {}
    # The log-spaced ones, if the run kept any: those for resuming are close to one another and soon deleted.
    kept = sorted(Path(run).glob(f"{FOLDER}/*/config.json"))
    for config in kept or sorted([*Path(run).glob("*/config.json"), *Path(run).glob("*/*/config.json")]):
        number = re.search(r"-(\d+)$", config.parent.name)
        if number and has_weights(config.parent):
            found.setdefault(int(number.group(1)), config.parent)
    results = Path(run) / "results.json"
    if has_weights(Path(run)) and results.is_file():  # the final model
        updates = {row.get("details", {}).get("updates") for row in json.loads(results.read_text(encoding="utf-8"))}
        for number in updates - {None}:
            found.setdefault(number, Path(run))
    if not found:
        raise GPT1Error(
            f"{run!r} has no checkpoints: a checkpoint is a folder in it with config.json and model.safetensors whose "
            "name ends in a hyphen and the number of updates"
        )
    return sorted(found.items())


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a saved model."""
    return any(folder.glob("model*.safetensors"))


def score_checkpoint(
    common: ZeroShotArguments, tasks: list[str], output_dir: Path
) -> dict[str, tuple[list[Result], Predictions]]:
    """
    Score a checkpoint on tasks. Earlier scores with the same settings are read back.

    Returns:
        `dict`: name of the task -> its results and predictions.
    """
    found: dict[str, tuple[list[Result], Predictions]] = {}
    scorer: Scorer | None = None
    for task in tasks:
        folder = "-".join(filter(None, (named_task(task).id, split_name(task)[1])))
        args = replace(common, task=task, output_dir=str(output_dir / folder))
        known = earlier_scores(args)
        if known is None:
            scorer = scorer or open_scorer(args)
            results, predictions = answer(scorer, args)
            write_predictions(args.output_dir, predictions)
            write_results(args.output_dir, results)
            known = results, *predictions.values()
        found[task] = known
    return found


def earlier_scores(args: ZeroShotArguments) -> tuple[list[Result], Predictions] | None:
    """Earlier results with the same settings, and their predictions, unless the checkpoint is newer."""
    path, answered = Path(args.output_dir) / "results.json", Path(args.output_dir) / "predictions.jsonl"
    if not path.is_file() or not answered.is_file():
        return None
    if path.stat().st_mtime < max(file.stat().st_mtime for file in Path(args.model).glob("model*.safetensors")):
        return None
    results = [Result(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    _, rows = scored_rows(args)
    wanted = {
        "sample": args.sample,
        "max_examples": args.max_examples,
        "max_length": args.max_length,
        "task_version": named_task(args.task).version,
        "rows_digest": rows_digest(rows),
    }
    is_same = all(result.model == args.model and wanted.items() <= result.details.items() for result in results)
    if not results or not is_same:
        return None
    predictions = [json.loads(line) for line in answered.read_text(encoding="utf-8").splitlines()]
    if len(predictions) != len(rows):
        return None
    predictions = with_documents(predictions, rows)  # earlier versions did not write them
    # Earlier versions wrote results without intervals.
    return with_intervals(results, named_task(args.task).resolved(args.data_dir), predictions), predictions


def change(result: Result, task: Task, first: Predictions, last: Predictions) -> dict[str, Any]:
    """
    Difference of a result from that of the first checkpoint on the same rows: `value`, and `interval` by a paired
    bootstrap.
    """
    labels, before = answers_of(result, task, first)
    _, after = answers_of(result, task, last)
    documents = documents_of(result, task, last)
    value, ends = paired_difference(metric_of(result, task), before, after, labels, documents)
    if result.metric == RELATIVE:
        width = result.details["best_supervised"] - result.details["random_guess"]
        return {"value": round(value / width, 4), "interval": [round(end / width, 4) for end in ends]}
    return {"value": round(value, 2), "interval": [round(end, 2) for end in ends]}


def curves(results: list[Result], relative: bool = False) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """
    Task (see [`curve_name`]) and architecture -> (updates, value), in the order of training.

    Args:
        results (list of [`Result`]):
            Return value of [`measure`].
        relative (`bool`, *optional*, defaults to `False`):
            Whether the values are relative performance, instead of the task's own metric.

    Returns:
        `dict`. For a task that was scored as a whole and in subsets, the whole counts.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    for result in asked_for(results):
        if (result.metric == RELATIVE) == relative:
            curve = found.setdefault((curve_name(result), result.details["architecture"]), {})
            curve.setdefault(result.details["updates"], result.value)
    return {key: sorted(curve.items()) for key, curve in found.items()}


def table(results: list[Result]) -> str:
    """A row for each checkpoint: every task's metric with its interval."""
    own = [result for result in asked_for(results) if result.metric != RELATIVE]
    tasks = list(dict.fromkeys(curve_name(result) for result in own))
    cells: dict[tuple[str, int], dict[str, str]] = {}
    for result in own:
        row = cells.setdefault((result.details["architecture"], result.details["updates"]), {})
        row.setdefault(curve_name(result), f"{result.value:.1f} ({interval_text(result, 1)})")
    rows = [
        (architecture, f"{updates:,}", *(row.get(task, "–") for task in tasks))
        for (architecture, updates), row in cells.items()
    ]
    headers = ("architecture", "updates", *tasks)
    return tabulate(rows, headers=headers, colalign=("left", *["right"] * (len(tasks) + 1)))
