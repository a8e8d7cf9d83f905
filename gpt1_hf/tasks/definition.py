"""A task's YAML file: reading and checking it, and writing one.

`assets/task.yaml` is a commented file with every key that a task on your own data may have. Labels are of four kinds:

- `classes`: one label a row. Metrics: `accuracy`, `f1` (two classes), `matthews_correlation`.
- `multiple`: a list of labels a row, which may be empty. Metric: `f1_micro`.
- `scores`: a number a row, in `score_range` if that is given. Metrics: `pearson`, `spearman`.
- `tags`: a list with one label for each word, only in the format `token_classification`. Metric: `accuracy`.

The first metric is the default. A kind that is not given is inferred from the training rows: lists are `multiple`,
numbers with fractions are `scores`, anything else is `classes`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from math import inf
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError
from ..resources import ASSETS, read_yaml
from ..settings import nearest
from .spec import FORMAT_COLUMNS, LABEL_METRICS, OPTIONAL_COLUMNS, SPLITS
from .task import Task


FOLDER = Path(__file__).parent
TEMPLATE = ASSETS / "task.yaml"
# Names of training files that say nothing about the data.
UNTELLING = r"train(ing)?(-\d+.*)?|data(set)?"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _name(value: Any) -> str:
    """A label: YAML reads an unquoted `no` as false, and `1` as a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise ValueError
    return str(value)


def _list(of: Callable[[Any], Any]) -> Callable[[Any], tuple]:
    def convert(value: Any) -> tuple:
        if not isinstance(value, list) or not value:
            raise ValueError
        found = tuple(map(of, value))
        if len(set(map(str, found))) < len(found):
            raise ValueError
        return found

    return convert


def _mapping(of: Callable[[Any], Any], key: Callable[[Any], str] = _text) -> Callable[[Any], dict]:
    def convert(value: Any) -> dict:
        if not isinstance(value, Mapping) or not value:
            raise ValueError
        return {key(name): of(one) for name, one in value.items()}

    return convert


def _columns(value: Any) -> str | tuple[str, ...]:
    return _list(_text)(value) if isinstance(value, list) else _text(value)


def _layout(value: Any) -> dict[str, str | tuple[str, ...]]:
    layout = _mapping(_columns)(value)
    _text(layout.get("label"))
    return layout


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise ValueError
    return float(value)


def _share(value: Any) -> float:
    if not 0 < _number(value) < 1:
        raise ValueError
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _range(value: Any) -> tuple[float, float]:
    low, high = map(_number, value)
    if low >= high:
        raise ValueError
    return low, high


def _numbers(value: Any) -> tuple[float, float]:
    if set(value) != {"paper", "prior"}:
        raise ValueError
    return _number(value["paper"]), _number(value["prior"])


def _one_of(known: Any) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in known:
            raise ValueError
        return value

    return convert


_METRICS = tuple(dict.fromkeys(metric for metrics in LABEL_METRICS.values() for metric in metrics))
_FILES = {f"{split}_file": split for split in SPLITS}
_NAMES = "a list of different names (in quotes, where a name is yes, no, true or false)"

# Key of the YAML file -> function that converts its value, and the expected value in words. All keys except the data
# files are fields of `Task`. `describe` writes them in this order.
KEYS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "dataset": (_text, "a Hub id"),
    "config": (_text, "the name of a configuration"),
    "other_configs": (_list(_text), "a list of configurations"),
    "revision": (_text, "a revision, in quotes"),
    **dict.fromkeys(_FILES, (_text, "the path of a data file")),
    "validation_share": (_share, "a share of the training rows, above 0 and below 1"),
    "download": (_text, "a text"),
    "code": (_text, "the name of a module"),
    "input_format": (_one_of(FORMAT_COLUMNS), f"one of {', '.join(FORMAT_COLUMNS)}"),
    "columns": (
        _mapping(_columns),
        "a mapping from each column of the input format to one or several of the data",
    ),
    "label_column": (_text, "the name of a column"),
    "other_layouts": (_list(_layout), "a list of mappings like columns, with the key label"),
    "labels": (_one_of(LABEL_METRICS), f"one of {', '.join(LABEL_METRICS)}"),
    "label_names": (_list(_name), _NAMES),
    "label_ids": (_mapping(_whole, _name), "a mapping from each label in the data to a class id"),
    "score_range": (_range, "the lowest and the highest score, such as [0, 5]"),
    "regression_bins": (_whole, "a whole number"),
    "drop_unlabelled": (_flag, "true or false"),
    "scored_splits": (_list(_one_of(SPLITS)), f"a list of {', '.join(SPLITS)}"),
    "metric": (_one_of(_METRICS), f"one of {', '.join(_METRICS)}"),
    "other_metrics": (_list(_one_of(_METRICS)), f"a list of {', '.join(_METRICS)}"),
    "paper": (_number, "a number"),
    "prior": (_number, "a number"),
    "subsets": (_mapping(_numbers), "a mapping from each subset to its numbers, paper and prior"),
    "pooled": (_flag, "true or false"),
    "sizes": (_mapping(_whole), "a mapping from each split to its number of rows"),
    "notes": (_text, "a text"),
    "version": (_whole, "a whole number"),
}


def read_task(path: str | Path, built_in: bool = False) -> Task:
    """
    Read a task from its YAML file.

    Args:
        path (`str` or `Path`):
            The file, whose name is the task's id. Paths of data files in it are relative to its folder.
        built_in (`bool`, *optional*, defaults to `False`):
            Whether the task comes with the package, and may name a module with `code`.

    Raises:
        UsageError: if the file does not exist, or a key is wrong; the message names the key.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no task file {path}")
    _, content = read_yaml(str(path))
    if not built_in:
        if (FOLDER / f"{path.stem}.yaml").is_file():
            raise UsageError(f"{path} has the id of the built-in task {path.stem}: give the file another name")
        if "code" in content:
            raise UsageError(f"{path}: only the package's own tasks may have the key code")
    return make_task(path.stem, content, str(path), path.parent, built_in)


def make_task(task_id: str, content: Mapping[str, Any], where: str, folder: Path, built_in: bool = False) -> Task:
    """
    Make a task from the keys of a YAML file.

    Args:
        task_id (`str`):
            The task's id.
        content (`Mapping`):
            Key of the file -> value.
        where (`str`):
            Beginning of error messages.
        folder (`Path`):
            Folder that paths of data files are relative to.
        built_in (`bool`, *optional*, defaults to `False`):
            Whether the task comes with the package.

    Raises:
        UsageError: if a key is unknown or missing, or a value is wrong; the message names the key.
    """
    found = {}
    for key, value in content.items():
        if key not in KEYS:
            near = nearest(key, KEYS)
            raise UsageError(f"{where}: unknown key {key!r}{near or '; known keys: ' + ', '.join(KEYS)}")
        read, what = KEYS[key]
        try:
            found[key] = read(value)
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{where}: {key} must be {what}, not {value!r}") from error

    files = {split: found.pop(key) for key, split in _FILES.items() if key in found}
    files = {split: str((folder / Path(file).expanduser()).absolute()) for split, file in files.items()}
    if "dataset" in found and files:
        raise UsageError(f"{where}: give either dataset or {next(iter(files))}_file, not both")
    if "dataset" not in found and "train" not in files:
        raise UsageError(f"{where}: the key dataset (a Hub id) or train_file is missing")
    if "validation" in files and "validation_share" in found:
        raise UsageError(f"{where}: give either validation_file or validation_share, not both")
    for key in ("config", "revision", "other_configs"):
        if files and key in found:
            raise UsageError(f"{where}: {key} is for a dataset on the Hub, not for files")
    input_format = found.setdefault("input_format", None)
    if input_format is None and not built_in:
        raise UsageError(f"{where}: the key input_format is missing; it is one of {', '.join(FORMAT_COLUMNS)}")
    _check_columns(found, where)
    _check_labels(found, where)
    defaults: dict[str, Any] = {"dataset": None, "label_names": (), "metric": "", "paper": None}
    if not built_in:
        known = tuple(split for split in SPLITS if split in files or split == "validation") if files else ()
        defaults |= {"splits": known if "validation" in files else (), "labels": None}
    task = Task(**{**defaults, **found, "id": task_id, "files": files, "built_in": built_in})
    for split in task.scored_splits:
        if files and split not in (*files, "validation"):
            raise UsageError(f"{where}: scored_splits names {split}, but there is no {split}_file")
    return task


def _check_columns(found: dict[str, Any], where: str):
    """Raise if the columns do not fit the input format. Columns that already have its names may be left out."""
    needed = FORMAT_COLUMNS.get(found["input_format"])
    if needed is None:
        return
    given = found.get("columns")
    names_texts = any(name in (given or {}) for name in needed if name != "choices")
    columns = {name: name for name in needed if not names_texts or name not in OPTIONAL_COLUMNS} | (given or {})
    for name in columns:
        if name not in needed:
            raise UsageError(
                f"{where}: columns has {name!r}, but the input format {found['input_format']} reads "
                f"{', '.join(needed)}{nearest(name, needed)}"
            )
    own = [name for value in columns.values() for name in ((value,) if isinstance(value, str) else value)]
    own.append(found.get("label_column", "label"))
    for name in own:
        if own.count(name) > 1:
            raise UsageError(f"{where}: the column {name!r} is given twice, in columns and label_column")
    if "idx" in own:
        raise UsageError(f"{where}: a column named idx numbers the rows: give the column another name")
    found["columns"] = columns
    if "question" in columns and "question" not in (given or {}):  # the file need not have one
        without = {name: value for name, value in columns.items() if name != "question"}
        without["label"] = found.get("label_column", "label")
        found["other_layouts"] = (*found.get("other_layouts", ()), without)


def _check_labels(found: dict[str, Any], where: str):
    """Check that the keys for labels and metrics agree, and fill in the missing ones."""
    input_format, kind = found["input_format"], found.get("labels")
    names, score_range = found.get("label_names"), found.get("score_range")
    if input_format == "token_classification":
        kind = found.setdefault("labels", "tags")
    elif score_range:
        kind = found.setdefault("labels", "scores")
    elif input_format == "multiple_choice":
        kind = found.setdefault("labels", "classes")
    if (kind == "tags") != (input_format == "token_classification") and kind:
        raise UsageError(f"{where}: labels: tags needs input_format: token_classification")
    if input_format == "multiple_choice" and kind != "classes":
        raise UsageError(f"{where}: the labels of a multiple choice are classes, not {kind}")
    if kind == "scores" and (names or "label_ids" in found):
        raise UsageError(f"{where}: scores have a score_range, not {'label_names' if names else 'label_ids'}")
    if score_range and kind != "scores":
        raise UsageError(f"{where}: score_range needs labels: scores, not labels: {kind}")
    if "regression_bins" in found and score_range != (0.0, found["regression_bins"] - 1.0):
        raise UsageError(
            f"{where}: regression_bins {found['regression_bins']} needs the score_range "
            f"[0, {found['regression_bins'] - 1}]"
        )
    if names and len(names) < 2:
        raise UsageError(f"{where}: label_names needs at least two names")
    for label, index in found.get("label_ids", {}).items():
        if not names or index >= len(names):
            raise UsageError(f"{where}: label_ids gives {label!r} the id {index}, which label_names does not have")
    if kind and "metric" not in found:
        found["metric"] = LABEL_METRICS[kind][0]
    for metric in (found.get("metric"), *found.get("other_metrics", ())):
        if kind and metric not in LABEL_METRICS[kind]:
            raise UsageError(
                f"{where}: the metric {metric} does not fit labels: {kind}; use {' or '.join(LABEL_METRICS[kind])}"
            )
        if metric == "f1" and names and len(names) > 2:
            raise UsageError(f"{where}: the metric f1 needs two classes, but there are {len(names)}: use accuracy")


def task_from_files(
    train_file: str | Path,
    validation_file: str | Path | None = None,
    input_format: str = "classification",
    text_columns: Sequence[str] | None = None,
    label_column: str = "label",
    choices_columns: Sequence[str] | None = None,
    test_file: str | Path | None = None,
    **settings: Any,
) -> Task:
    """
    A task on a user's files, without a YAML file.

    Args:
        train_file (`str` or `Path`):
            Training rows: `.csv`, `.tsv`, `.jsonl`, `.json` or `.parquet`. The task's id is its name without the
            ending or, if that says nothing, as in `reviews/train.csv`, the name of its folder.
        validation_file (`str` or `Path`, *optional*):
            Validation rows; without it, a share of the training rows is held out.
        input_format (`str`, *optional*, defaults to `"classification"`):
            Format of [`GPT1Processor`], or `token_classification`.
        text_columns (list of `str`, *optional*):
            Columns of the texts, in the order of the format: text; premise and hypothesis; the two texts; document
            and, optionally, question; words. Defaults to the format's own names. For `classification`, several columns
            are joined by a space.
        label_column (`str`, *optional*, defaults to `"label"`):
            Column of the label.
        choices_columns (list of `str`, *optional*):
            For `multiple_choice`: the column of lists, or one column for each choice. Defaults to `choices`.
        test_file (`str` or `Path`, *optional*):
            Test rows.
        settings:
            Other keys of a task's YAML file, such as `labels` or `metric`.

    Returns:
        [`Task`], not resolved.

    Raises:
        UsageError: if the settings do not fit together. The files are read by [`Task.resolved`].
    """
    given = {"train_file": train_file, "validation_file": validation_file, "test_file": test_file}
    files = {key: str(file) for key, file in given.items() if file is not None}
    if input_format not in FORMAT_COLUMNS:
        raise UsageError(f"input_format must be one of {', '.join(FORMAT_COLUMNS)}, not {input_format!r}")
    roles = [name for name in FORMAT_COLUMNS[input_format] if name != "choices"]
    texts = [text_columns] if isinstance(text_columns, str) else list(text_columns or ())
    columns: dict[str, Any] = {}
    if input_format == "classification" and texts:
        columns["text"] = texts[0] if len(texts) == 1 else texts
    elif texts:
        needed = [name for name in roles if name not in OPTIONAL_COLUMNS]
        if not len(needed) <= len(texts) <= len(roles):
            raise UsageError(
                f"the input format {input_format} reads {' and '.join(roles)}: give {len(roles)} text columns, not "
                f"{len(texts)} ({', '.join(texts)})"
            )
        columns = dict(zip(roles, texts, strict=False))
    if choices_columns:
        choices = [choices_columns] if isinstance(choices_columns, str) else list(choices_columns)
        columns["choices"] = choices[0] if len(choices) == 1 else choices
    content = {**files, "input_format": input_format, "label_column": label_column, **settings}
    if columns:
        content["columns"] = columns
    return make_task(id_of_file(train_file), content, Path(train_file).name, Path.cwd())


def id_of_file(train_file: str | Path) -> str:
    """Id of the task on a training file: its name or, if every data set may have a file of that name, its folder's."""
    path = Path(train_file).expanduser().absolute()
    folder = path.resolve().parent.name if re.fullmatch(UNTELLING, path.stem, re.IGNORECASE) else ""
    name = folder or path.stem
    if (FOLDER / f"{name}.yaml").is_file():  # a built-in task's id
        name = f"{name}_{path.name}".replace(".", "_") if folder else path.name.replace(".", "_")
    return name


def describe(task: Task, folder: str | Path | None = None) -> str:
    """
    Text of a task's YAML file. For a built-in task, this is its own file with its comments.

    Args:
        task ([`Task`]):
            Task.
        folder (`str` or `Path`, *optional*):
            Folder that the file is for; paths of data files inside it are written relative to it.
    """
    if task.built_in:
        return (FOLDER / f"{task.id}.yaml").read_text(encoding="utf-8")
    return _as_yaml(_content(task, folder))


def describe_inferred(task: Task, resolved: Task) -> str:
    """The keys that [`Task.resolved`] added to a task, as YAML."""
    given = _content(task, None)
    return _as_yaml({key: value for key, value in _content(resolved, None).items() if given.get(key) != value})


def fill_template(task: Task, folder: str | Path | None = None) -> str:
    """Like [`describe`], with the other keys as comments that explain what they are for."""
    content = _content(task, folder)
    lines = []
    for line in TEMPLATE.read_text(encoding="utf-8").splitlines():
        key = re.match(r"#(\w+):", line)
        if key and key[1] in content:
            line = _as_yaml({key[1]: content.pop(key[1])}).rstrip()
        lines.append(line)
    return "\n".join(lines) + "\n" + (_as_yaml(content) if content else "")


def _as_yaml(content: dict[str, Any]) -> str:
    """YAML with a line for each key: lists and mappings in brackets."""
    return "".join(
        yaml.safe_dump(
            {key: value},
            allow_unicode=True,
            width=110,
            default_flow_style=None if isinstance(value, list | dict) else False,
            sort_keys=False,
        )
        for key, value in content.items()
    )


def _content(task: Task, folder: str | Path | None) -> dict[str, Any]:
    """Keys of a task's YAML file, without those that have their default."""
    defaults = {field.name: field.default for field in fields(Task)}
    names = {name: index for index, name in enumerate(task.label_names)}
    content: dict[str, Any] = {}
    for key in KEYS:
        if key in _FILES:
            if _FILES[key] in task.files:
                content[key] = _relative(task.files[_FILES[key]], folder)
            continue
        value = getattr(task, key)
        if value in (None, (), {}, "", defaults[key]) and not (key == "labels" and value):
            continue
        # Inferred from the other keys and the rows.
        follows = {"score_range": value == (-inf, inf), "label_ids": value == names}
        if not follows.get(key):
            content[key] = _plain(value)
    return content


def _relative(file: str, folder: str | Path | None) -> str:
    if folder is not None and Path(file).is_relative_to(Path(folder).absolute()):
        return Path(file).relative_to(Path(folder).absolute()).as_posix()
    return file


def _plain(value: Any) -> Any:
    """Tuples as lists, and whole numbers without a decimal point."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
