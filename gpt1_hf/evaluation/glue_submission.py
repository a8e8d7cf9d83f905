"""The zip that GLUE's leaderboard takes: a file of predictions for each hidden test set (https://gluebenchmark.com/faq).

The names of the files, their header and the spelling of the labels follow the formatter of the benchmark's own authors
(jiant, `jiant/scripts/benchmarks/benchmarks.py`). The server scores no submission that lacks a file.
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
from ..settings import default_data_dir
from ..tasks import Task, load_task
from ..training_record import row_length, trained_on
from .task_scores import encode_rows, open_fine_tuned, predict, write_predictions


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GlueFile:
    """
    One file of a submission.

    Args:
        name (`str`):
            Its name, without `.tsv`.
        task (`str`, *optional*):
            Task whose model predicts it; `None` for WNLI, which the paper leaves out.
        n_rows (`int`):
            Rows of the test set, with the indices 0 to `n_rows - 1`.
        majority (`str`):
            The training set's most frequent label, or its mean score.
        subset (`str`, *optional*):
            Part of the test split that it holds.
        has_names (`bool`):
            Whether labels are spelt out; otherwise they are class ids, or scores.
    """

    name: str
    task: str | None
    n_rows: int
    majority: str
    subset: str | None = None
    has_names: bool = False


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
    # Left out by the paper; answers by the most frequent label score 65.1 on it (Wang et al., 2018, Table 4).
    GlueFile("WNLI", None, 146, "0"),
    # The diagnostic set, predicted by the model for MultiNLI.
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
    """One submission to GLUE's leaderboard."""

    models: str | None = field(
        default=None,
        metadata={"help": "Folder of fine-tuned models, <models>/<task>, as `gpt1 finetune --task all` leaves them."},
    )
    predictions: str | None = field(
        default=None,
        metadata={
            "help": "Folder of predictions made before, <predictions>/<task>/predictions.jsonl, as `gpt1 evaluate "
            "--split test` and this command leave them; used before models."
        },
    )
    data_dir: str | None = field(
        default_factory=default_data_dir,
        metadata={"help": "Folder with local copies of data sets, laid out as on the Hub. Default: GPT1_DATA_DIR."},
    )
    fill_missing: bool = field(
        default=False, metadata={"help": "Answer test sets that have no predictions by the most frequent label."}
    )
    batch_size: int = field(default=64, metadata={"help": "Rows per forward pass."})
    output_dir: str = field(
        default="runs/submit", metadata={"help": "Where submission.zip and the predictions are written."}
    )


def submit(args: SubmitArguments) -> Path:
    """
    Write `<output_dir>/submission.zip`, from fine-tuned models, from predictions, or from both.

    Returns:
        `Path` of the zip.

    Raises:
        GPT1Error: if neither is given, predictions do not fit their test set, or files are lacking and `fill_missing`
        is off.
    """
    if not args.models and not args.predictions:
        raise UsageError("submit needs --models, a folder of fine-tuned models, or --predictions")
    for folder in filter(None, (args.models, args.predictions)):
        if not Path(folder).is_dir():
            raise GPT1Error(f"there is no folder {folder}")
    found: dict[str, list[dict[str, Any]]] = {}
    sources, lacking = {}, {}
    for task_id in dict.fromkeys(file.task for file in FILES if file.task):
        try:
            rows, sources[task_id] = _predictions(args, task_id)
        except GPT1Error as error:
            lacking[task_id] = str(error)
            continue
        for file in FILES:
            if file.task == task_id:
                own = [row for row in rows if file.subset is None or row.get("subset") == file.subset]
                if own:
                    found[file.name] = own
                else:
                    lacking[file.name] = f"there are no predictions of {file.subset}"

    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        raise GPT1Error(f"there are no predictions to submit ({reasons})")
    contents, report = {}, []
    for file in FILES:
        if file.name in found:
            contents[file.name] = answers(file, found[file.name], complete=True)
            source = sources[file.task]
        elif file.task is None or args.fill_missing:
            contents[file.name] = dict.fromkeys(range(file.n_rows), file.majority)
            why = "no model: the paper leaves it out" if file.task is None else "missing"
            source = f"{file.majority} for all ({why})"
        else:
            continue
        report.append((f"{file.name}.tsv", len(contents[file.name]), source))
    if len(contents) < len(FILES):
        names = ", ".join(file.name for file in FILES if file.name not in contents)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        raise GPT1Error(
            f"the leaderboard takes complete submissions only, and this one lacks {names} ({reasons}): add them, or "
            "fill them with the most frequent label by --fill_missing"
        )
    path = write_submission(Path(args.output_dir) / "submission.zip", contents)
    print(tabulate(report, headers=("file", "rows", "from")))
    for name, reason in lacking.items():
        print(f"filled: {name}: {reason}")
    note(f"written to {path}")
    return path


def answers(file: GlueFile, rows: Sequence[dict[str, Any]], complete: bool = False) -> dict[int, str]:
    """
    Predictions as the server reads them.

    Args:
        file ([`GlueFile`]):
            Which file they are for.
        rows (list of `dict`):
            Predictions as `predictions.jsonl` has them: `id`, and `prediction`, a class id or a score.
        complete (`bool`, *optional*, defaults to `False`):
            Whether they have to be of the whole test set.

    Returns:
        `dict`: index -> label, in the order of the indices.

    Raises:
        GPT1Error: if an index is there twice, a prediction is no answer of the task, or rows are missing.
    """
    task = load_task(file.task)
    found = {}
    for row in sorted(rows, key=lambda row: row["id"]):
        index, prediction = int(row["id"]), row["prediction"]
        if index in found:
            raise GPT1Error(f"{file.name}: there are two predictions of row {index}")
        if task.score_range:
            low, high = task.score_range
            if not abs(prediction) < float("inf"):
                raise GPT1Error(f"{file.name}: the prediction of row {index} is {prediction}, which is no score")
            found[index] = f"{min(max(prediction, low), high):.6f}"
            continue
        if prediction not in range(len(task.label_names)):
            raise GPT1Error(f"{file.name}: the prediction of row {index} is {prediction!r}, which is no class id")
        found[index] = task.label_names[int(prediction)] if file.has_names else str(int(prediction))
    if complete:
        _check_test_rows(file, task, rows, found)
    return found


def _check_test_rows(file: GlueFile, task: Task, rows: Sequence[dict[str, Any]], found: dict[int, str]):
    """Raise if predictions are of other rows than the test set's."""
    if list(found) != list(range(file.n_rows)):
        raise GPT1Error(
            f"{file.name}: the predictions are not of the test set, which has the rows 0 to {file.n_rows - 1}: there "
            f"are {len(found)}, {min(found)} to {max(found)}; give those of `gpt1 evaluate --split test`"
        )
    # Labels alone tell nothing: the Hub has those of MRPC's test set (huggingface/datasets#6506). But QNLI's
    # validation set has as many rows as its test set, which has no labels.
    twins = [name for name, size in task.sizes.items() if size == file.n_rows and not name.startswith("test")]
    if twins and any(row.get("label", -1) != -1 for row in rows):
        raise GPT1Error(
            f"{file.name}: these predictions are of rows with labels, which {twins[0]} has and the test set has not; "
            "give those of `gpt1 evaluate --split test`"
        )


def write_submission(path: str | Path, contents: dict[str, dict[int, str]]) -> Path:
    """Write a zip of a `.tsv` for each name, with the header `index`, `prediction`; and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, rows in contents.items():
            lines = ["index\tprediction", *(f"{index}\t{label}" for index, label in rows.items())]
            archive.writestr(f"{name}.tsv", "\n".join(lines) + "\n")
    return unfinished.replace(path)


def read_submission(path: str | Path) -> dict[str, dict[int, str]]:
    """What [`write_submission`] has written: name -> index -> label."""
    contents = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            text = io.StringIO(archive.read(name).decode("utf-8"), newline="")
            rows = csv.DictReader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
            contents[Path(name).stem] = {int(row["index"]): row["prediction"] for row in rows}
    return contents


def _predictions(args: SubmitArguments, task_id: str) -> tuple[list[dict[str, Any]], str]:
    """The predictions of a task's test rows, and where they are from."""
    if args.predictions:
        file = Path(args.predictions) / task_id / "predictions.jsonl"
        if file.is_file():
            rows = _read_jsonl(file)
            diagnostic = file.with_name("predictions_ax.jsonl")
            if task_id == "mnli" and diagnostic.is_file():
                rows += [{**row, "subset": "ax"} for row in _read_jsonl(diagnostic)]
            return rows, str(file)
    if not args.models:
        raise GPT1Error(f"{file} is missing")
    model = _model_folder(Path(args.models) / task_id)
    task = load_task(task_id)
    output_dir = str(Path(args.output_dir) / task_id)
    fine_tuned, processor = open_fine_tuned(str(model), task)
    made_for = trained_on(fine_tuned.config).get("task", task_id)
    if made_for != task_id:
        raise GPT1Error(f"the model in {model} was fine-tuned on {made_for}, not on {task_id}")
    predictions = {}
    for own in (task, DIAGNOSTIC) if task_id == "mnli" else (task,):
        try:
            rows = own.load("test", args.data_dir)
        except GPT1Error:
            if own is task:
                raise
            logger.warning("the data lacks the diagnostic set (AX)")
            continue
        encoded = encode_rows(rows, processor, row_length(fine_tuned.config, processor.tokenizer))
        predicted = predict(fine_tuned, processor, own, rows, encoded, args.batch_size)
        predictions["test" if own is task else own.id] = predicted
    write_predictions(output_dir, predictions)
    rows = predictions["test"] + [{**row, "subset": "ax"} for row in predictions.get("ax", ())]
    return rows, str(model)


def _model_folder(folder: Path) -> Path:
    """A task's model; of several seeds, the one that is best on the validation split."""
    if (folder / "config.json").is_file():
        return folder
    values = {}
    for seed in sorted(folder.glob("seed-*")):
        if (seed / "config.json").is_file() and (seed / "results.json").is_file():
            results = json.loads((seed / "results.json").read_text(encoding="utf-8"))
            values[seed] = results[0]["value"]
    if not values:
        raise GPT1Error(f"there is no fine-tuned model in {folder}")
    return max(values, key=values.get)


def _read_jsonl(file: Path) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise GPT1Error(f"{file} is damaged: {error}") from error
    for number, row in enumerate(rows, 1):
        known = isinstance(row, dict) and isinstance(row.get("id"), int)
        if not known or not isinstance(row.get("prediction"), int | float):
            raise GPT1Error(f"{file} is damaged: line {number} has no id and prediction")
    return rows


__all__ = ["FILES", "SubmitArguments", "answers", "read_submission", "submit", "write_submission"]
