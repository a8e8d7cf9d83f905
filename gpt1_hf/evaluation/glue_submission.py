"""`gpt1 submit`: the zip for GLUE's leaderboard, one file of predictions for each hidden test set.

File names, header and label names follow the formatter of GLUE's authors (jiant,
`jiant/scripts/benchmarks/benchmarks.py`). The server rejects incomplete submissions (https://gluebenchmark.com/faq).
"""

import csv
import io
import json
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..console import note
from ..errors import GPT1Error, UsageError
from ..files import replacing
from ..settings import default_data_dir
from ..tasks import Task, load_task
from ..training_record import row_length, trained_on
from .results import RESULTS
from .task_scores import encode_rows, open_fine_tuned, predict, write_predictions


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GlueFile:
    """One file of a submission."""

    name: str  # without `.tsv`
    task: str | None  # of the model that predicts the file; `None` for WNLI, which the paper leaves out
    n_rows: int  # of the test set; their indices are 0 to `n_rows - 1`
    majority: str  # most frequent label, or mean score, of the training set
    subset: str | None = None  # of the test split
    has_names: bool = False  # whether the file contains label names; other files contain class ids or scores


FILES = [
    GlueFile("CoLA", "cola", 1063, "1"),
    GlueFile("SST-2", "sst2", 1821, "1"),
    GlueFile("MRPC", "mrpc", 1725, "1"),
    GlueFile("STS-B", "stsb", 1379, "2.7"),
    GlueFile("QQP", "qqp", 390965, "0"),
    GlueFile("MNLI-m", "mnli", 9796, "contradiction", "matched", has_names=True),
    GlueFile("MNLI-mm", "mnli", 9847, "contradiction", "mismatched", has_names=True),
    GlueFile("QNLI", "qnli", 5463, "not_entailment", has_names=True),
    GlueFile("RTE", "rte", 3000, "entailment", has_names=True),
    # The paper leaves WNLI out. The most frequent label scores 65.1 on it (Wang et al., 2018, Table 4).
    GlueFile("WNLI", None, 146, "0"),
    # The diagnostic set, which the MultiNLI model predicts.
    GlueFile("AX", "mnli", 1104, "contradiction", "ax", has_names=True),
]
DIAGNOSTIC = replace(
    load_task("mnli"),
    id="ax",
    config="ax",
    metric="matthews_correlation",
    paper=None,
    prior=None,
    splits=("test",),
    code=None,
    subsets={},
    pooled=True,
    sizes={},
    notes="",
)


@dataclass
class SubmitArguments:
    """Settings of `gpt1 submit`."""

    models: str | None = field(
        default=None,
        metadata={"help": "Folder of fine-tuned models, <models>/<task>, as written by `gpt1 finetune --task all`."},
    )
    predictions: str | None = field(
        default=None,
        metadata={
            "help": "Folder of predictions, <predictions>/<task>/predictions.jsonl, as written by `gpt1 evaluate "
            "--split test` and by this command. A task found here needs no model."
        },
    )
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    fill_missing: bool = field(
        default=False, metadata={"help": "Fill test sets without predictions with the most frequent label."}
    )
    batch_size: int = field(default=64, metadata={"help": "Number of rows in a forward pass."})
    output_dir: str = field(default="runs/submit", metadata={"help": "Folder for submission.zip and the predictions."})


def submit(args: SubmitArguments) -> Path:
    """
    Write `<output_dir>/submission.zip` from fine-tuned models, from predictions, or from both.

    Returns:
        `Path` of the zip.

    Raises:
        UsageError: if neither models nor predictions are given.
        GPT1Error: if predictions do not match their test set, or some are missing and `fill_missing` is off.
    """
    if not args.models and not args.predictions:
        raise UsageError("submit needs --models, a folder of fine-tuned models, or --predictions")
    for folder in filter(None, (args.models, args.predictions)):
        if not Path(folder).is_dir():
            raise GPT1Error(f"there is no folder {folder}: correct --models or --predictions")
    rows, sources, missing = {}, {}, {}
    for task_id in dict.fromkeys(file.task for file in FILES if file.task):
        try:
            task_rows, source = _load_predictions(args, task_id)
        except GPT1Error as error:
            missing[task_id] = str(error)
            continue
        for file in FILES:
            if file.task == task_id:
                sources[file.name] = source
                rows[file.name] = [row for row in task_rows if file.subset in (None, row.get("subset"))]
                if not rows[file.name]:
                    missing[file.name] = f"there are no predictions for {file.subset}"

    contents, report = {}, []
    for file in FILES:
        if rows.get(file.name):
            contents[file.name] = format_predictions(file, rows[file.name], complete=True)
            report.append((f"{file.name}.tsv", len(contents[file.name]), sources[file.name]))
        elif file.task is None or args.fill_missing:
            contents[file.name] = dict.fromkeys(range(file.n_rows), file.majority)
            why = "no model: the paper leaves it out" if file.task is None else "missing"
            report.append((f"{file.name}.tsv", file.n_rows, f"{file.majority} for all ({why})"))
    reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
    if not any(rows.values()):
        raise GPT1Error(f"there are no predictions to submit ({reasons})")
    if len(contents) < len(FILES):
        names = ", ".join(file.name for file in FILES if file.name not in contents)
        raise GPT1Error(
            f"the leaderboard takes only complete submissions, and this one lacks {names} ({reasons}): add them, or "
            "fill them with the most frequent label by --fill_missing"
        )
    path = write_submission(Path(args.output_dir) / "submission.zip", contents)
    print(tabulate(report, headers=("file", "rows", "from")))
    for name, reason in missing.items():
        print(f"filled: {name}: {reason}")
    note(f"written to {path}")
    return path


def format_predictions(file: GlueFile, rows: Sequence[dict[str, Any]], complete: bool = False) -> dict[int, str]:
    """
    Turn predictions into the server's format.

    Args:
        file ([`GlueFile`]):
            File that the predictions are for.
        rows (list of `dict`):
            Rows of `predictions.jsonl`. `id` and `prediction`, a class id or a score, are used.
        complete (`bool`, *optional*, defaults to `False`):
            Whether the rows must be the whole test set.

    Returns:
        `dict`: row index -> label, ordered by index.

    Raises:
        GPT1Error: if an index occurs twice, a prediction is not valid for the task, or rows are missing.
    """
    task = load_task(file.task)
    labels = {}
    for row in sorted(rows, key=lambda row: row["id"]):
        index, prediction = int(row["id"]), row["prediction"]
        where = f"{file.name}: the prediction of row {index}"
        if index in labels:
            raise GPT1Error(f"{file.name}: there are two predictions of row {index}")
        if task.score_range:
            if not abs(prediction) < float("inf"):
                raise GPT1Error(f"{where} is {prediction}, which is not a score: predict again")
            low, high = task.score_range
            labels[index] = f"{min(max(prediction, low), high):.6f}"
        elif prediction in range(len(task.label_names)):
            labels[index] = task.label_names[int(prediction)] if file.has_names else str(int(prediction))
        else:
            raise GPT1Error(f"{where} is {prediction!r}, which is not a class id: predict again")
    if complete:
        _check_test_rows(file, task, rows, list(labels))
    return labels


def _check_test_rows(file: GlueFile, task: Task, rows: Sequence[dict[str, Any]], indices: list[int]):
    """Raise if predictions are for other rows than the test set's."""
    if indices != list(range(file.n_rows)):
        raise GPT1Error(
            f"{file.name}: the predictions are not for the test set, whose rows are 0 to {file.n_rows - 1}: there are "
            f"{len(indices)} predictions of rows {indices[0]} to {indices[-1]}; use those of `gpt1 evaluate --split "
            "test`"
        )
    # Labels alone prove nothing, since the Hub's test set of MRPC has labels (huggingface/datasets#6506). They matter
    # for QNLI, whose validation set has as many rows as its test set.
    same_size = [name for name, size in task.sizes.items() if size == file.n_rows and not name.startswith("test")]
    if same_size and any(row.get("label", -1) != -1 for row in rows):
        raise GPT1Error(
            f"{file.name}: the predicted rows have labels, so they are from {same_size[0]}, not from the test set; "
            "use the predictions of `gpt1 evaluate --split test`"
        )


def write_submission(path: str | Path, contents: dict[str, dict[int, str]]) -> Path:
    """Write a zip with a file `<name>.tsv` of the columns `index` and `prediction` for each name; return its path."""
    with replacing(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, labels in contents.items():
            lines = ["index\tprediction", *(f"{index}\t{label}" for index, label in labels.items())]
            archive.writestr(f"{name}.tsv", "\n".join(lines) + "\n")
    return Path(path)


def read_submission(path: str | Path) -> dict[str, dict[int, str]]:
    """Read the zip that [`write_submission`] writes: name -> index -> label."""
    contents = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            text = io.StringIO(archive.read(name).decode("utf-8"), newline="")
            rows = csv.DictReader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
            contents[Path(name).stem] = {int(row["index"]): row["prediction"] for row in rows}
    return contents


def _load_predictions(args: SubmitArguments, task_id: str) -> tuple[list[dict[str, Any]], str]:
    """Predictions of a task's test rows, read from a file or made by its model, and where they are from."""
    if args.predictions:
        file = Path(args.predictions) / task_id / "predictions.jsonl"
        if file.is_file():
            rows = _read_predictions(file)
            diagnostic = file.with_name("predictions_ax.jsonl")
            if task_id == "mnli" and diagnostic.is_file():
                rows += _as_diagnostic(_read_predictions(diagnostic))
            return rows, str(file)
    if not args.models:
        raise GPT1Error(f"{file} is missing")
    folder = _model_folder(Path(args.models) / task_id)
    task = load_task(task_id)
    model, processor = open_fine_tuned(str(folder), task)
    trained_task = trained_on(model.config).get("task", task_id)
    if trained_task != task_id:
        raise GPT1Error(
            f"the model in {folder} was fine-tuned on {trained_task}, not on {task_id}: put the right model there"
        )

    def predictions_of(test_set: Task) -> list[dict[str, Any]]:
        rows = test_set.load("test", args.data_dir)
        encoded = encode_rows(rows, processor, row_length(model.config, processor.tokenizer))
        return predict(model, processor, test_set, rows, encoded, args.batch_size)

    predictions = {"test": predictions_of(task)}
    if task_id == "mnli":
        try:
            predictions["ax"] = predictions_of(DIAGNOSTIC)
        except GPT1Error as error:
            logger.warning(f"the diagnostic set AX cannot be predicted ({error})")
    write_predictions(Path(args.output_dir) / task_id, predictions)
    return predictions["test"] + _as_diagnostic(predictions.get("ax", [])), str(folder)


def _as_diagnostic(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "subset": "ax"} for row in rows]


def _model_folder(folder: Path) -> Path:
    """Folder of a task's model; with several seeds, the one with the best validation result."""
    if (folder / "config.json").is_file():
        return folder
    values = {}
    for seed in sorted(folder.glob("seed-*")):
        if (seed / "config.json").is_file() and (seed / RESULTS).is_file():
            values[seed] = json.loads((seed / RESULTS).read_text(encoding="utf-8"))[0]["value"]
    if not values:
        raise GPT1Error(f"there is no fine-tuned model in {folder}: fine-tune one, or give --predictions")
    return max(values, key=values.get)


def _read_predictions(file: Path) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise GPT1Error(f"{file} is damaged: {error}") from error
    for number, row in enumerate(rows, 1):
        has_id = isinstance(row, dict) and isinstance(row.get("id"), int)
        if not has_id or not isinstance(row.get("prediction"), int | float):
            raise GPT1Error(f"{file} is damaged: line {number} has no id and prediction")
    return rows


__all__ = ["FILES", "SubmitArguments", "format_predictions", "read_submission", "submit", "write_submission"]
