"""What a benchmark is: where its rows are, what they mean, and how it is scored."""

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Value, concatenate_datasets

from ..data.loading import local_copy, open_dataset, reading_bars
from ..errors import GPT1Error, MissingSplitError, UsageError
from ..processing_gpt1 import INPUT_FORMATS
from ..resources import SAMPLES


logger = logging.getLogger(__name__)

# Types of columns that hold neither classes nor scores.
NO_LABELS = ("binary", "large_binary", "date", "time", "duration", "decimal")


@dataclass(frozen=True)
class Task:
    """
    A benchmark of the paper (§4.2).

    Args:
        id (`str`):
            The one name of the task: its recipe, its command-line value, its row of results.
        dataset (`str`):
            Hub id of the data set.
        input_format (`str`, *optional*):
            Format of [`GPT1Processor`] that the rows take; `None` for a task that is only scored zero-shot.
        columns (`dict[str, str | tuple[str, ...]]`):
            Canonical column -> the data set's own. Of several, texts are joined by a space, and `choices` is their
            list. Where a multiple-choice task has no `question`, it is empty.
        label_names (`tuple[str, ...]`):
            Names of the classes, or of the choices, in the order of their ids; none for scores.
        metric (`str`):
            Metric that the paper reports, a key of [`gpt1_hf.evaluation.metrics.METRICS`]; higher is better for all.
        paper (`float`, *optional*):
            The paper's number, on the (hidden) test set: of the whole split or, unless it is `pooled`, of the first
            subset.
        config (`str`, *optional*):
            Configuration of the Hub repository.
        other_configs (`tuple[str, ...]`):
            Configurations that a local copy may hold in its place.
        revision (`str`, *optional*):
            Revision of the Hub repository that the declaration was written for.
        splits (`tuple[str, ...]`):
            Splits that there are, of `train`, `validation` and `test`.
        scored_splits (`tuple[str, ...]`):
            Splits that a fine-tuned model is scored on.
        label_column (`str`):
            The data set's own name of the label.
        other_layouts (`tuple[dict, ...]`):
            Other sets of names that copies of the data use: as `columns`, with `label` in addition.
        label_ids (`dict[str, int]`, *optional*):
            Class id of each label, where the labels are not class ids themselves.
        score_range (`tuple[float, float]`, *optional*):
            Lowest and highest label, where labels are scores.
        sizes (`dict[str, int]`):
            Rows of each split, or subset of one, in the whole data set: a number on fewer is marked as such.
        subsets (`dict[str, tuple[float, float]]`):
            Parts of the evaluation splits that are scored each by itself -> the paper's number on them, and the best
            before it. Their names as splits are such as `validation_matched`.
        pooled (`bool`):
            Whether the subsets are scored together, too.
        other_metrics (`tuple[str, ...]`):
            Metrics that are reported beside the main one.
        prior (`float`, *optional*):
            Best number before the paper.
        drop_unlabelled (`bool`):
            Whether rows with the label −1 are left out (SNLI: no gold label), instead of being predicted.
        download (`str`):
            How to get the data, where the Hub does not give it.
        version (`int`):
            Raised when a change moves the numbers.
        notes (`str`):
            What to know of the data.
    """

    id: str
    dataset: str
    input_format: str | None
    columns: dict[str, str | tuple[str, ...]]
    label_names: tuple[str, ...]
    metric: str
    paper: float | None
    config: str | None = None
    other_configs: tuple[str, ...] = ()
    revision: str | None = None
    splits: tuple[str, ...] = ("train", "validation", "test")
    scored_splits: tuple[str, ...] = ("validation",)
    label_column: str = "label"
    other_layouts: tuple[dict[str, str | tuple[str, ...]], ...] = ()
    label_ids: dict[str, int] | None = None
    score_range: tuple[float, float] | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    subsets: dict[str, tuple[float, float]] = field(default_factory=dict)
    pooled: bool = True
    other_metrics: tuple[str, ...] = ()
    prior: float | None = None
    drop_unlabelled: bool = False
    download: str = ""
    version: int = 1
    notes: str = ""

    @reading_bars()
    def load(self, split: str, data_dir: str | None = None, sample: bool = False) -> Dataset:
        """
        Load a split in canonical columns, plus `label` (class id, or score), `idx` and, if its rows belong to subsets,
        `subset`.

        Args:
            split (`str`):
                `train`, `validation` or `test`, or a subset of one, such as `validation_matched`.
            data_dir (`str`, *optional*):
                Folder with local copies laid out as on the Hub, searched before it.
            sample (`bool`, *optional*, defaults to `False`):
                Whether to load the small labelled sample in the package instead.

        Returns:
            `Dataset`. Hidden labels (−1) are left as they are. Of a split in subsets it holds those that the copy has;
            the others are warned of.

        Raises:
            MissingSplitError: if a local copy lacks the split.
            GPT1Error: if the data are not to be had, a column or a value is missing, or a label lies outside the
            task's set.
        """
        whole, _, subset = split.partition("_")
        if whole not in self.splits or (subset and (subset not in self.subsets or whole == "train")):
            known = [*self.splits, *(f"{s}_{part}" for s in self.splits if s != "train" for part in self.subsets)]
            raise UsageError(f"task {self.id} has no split {split!r}; choose one of {', '.join(known)}")
        parts = self.read(whole, data_dir, sample)
        rows = concatenate_datasets([self.canonical(part, f"{self.id} ({name})") for name, part in parts.items()])
        if not subset:
            return rows
        chosen = [index for index, name in enumerate(rows["subset"][:]) if name == subset]
        if not chosen:
            raise MissingSplitError(f"the local copy of task {self.id} lacks the split {split!r}")
        return rows.select(chosen)

    def parts(self, split: str) -> dict[str, str | None]:
        """The splits that the rows of a split are scored as -> the subset that each is of; `None` is the whole."""
        _, _, subset = split.partition("_")
        if subset in self.subsets:
            return {split: subset}
        whole = {split: None} if self.pooled or not self.subsets else {}
        return {**whole, **{f"{split}_{subset}": subset for subset in self.subsets}}

    def numbers(self, subset: str | None) -> tuple[float | None, float | None]:
        """The paper's number and the best before it, of a subset or of the whole (`None`)."""
        return (self.paper, self.prior) if subset is None else self.subsets[subset]

    def read(self, split: str, data_dir: str | None, sample: bool) -> dict[str, Dataset]:
        """The rows of a split as the data set has them: name of the split, or of its parts -> rows."""
        return {split: self.open(split, data_dir, sample)}

    def open(self, split: str, data_dir: str | None, sample: bool, config: str | None = None) -> Dataset:
        """Open one of the data set's own splits, as it is."""
        if sample:
            return open_dataset(str(SAMPLES / self.id), split)
        folder = local_copy(self.dataset, data_dir)
        if config is None and folder:
            present = [name for name in (self.config, *self.other_configs) if name and (folder / name).is_dir()]
            config = next(iter(present), None)
        return open_dataset(self.dataset, split, config or self.config, data_dir, self.revision)

    def open_subsets(self, split: str, open_subset: Callable[[str], Dataset]) -> dict[str, Dataset]:
        """Open each subset of a split; those that a copy lacks are warned of, unless it lacks them all."""
        parts, missing = {}, {}
        for subset in self.subsets:
            name = f"{split}_{subset}"
            try:
                rows = open_subset(subset)
            except MissingSplitError as error:
                missing[name] = error
            else:
                parts[name] = with_subsets(rows, [subset] * len(rows))
        if not parts:
            raise MissingSplitError(str(next(iter(missing.values()))))
        for name, error in missing.items():
            logger.warning(f"task {self.id}: {name} is not run, since the local copy lacks it ({error})")
        return parts

    def canonical(self, rows: Dataset, where: str) -> Dataset:
        """Rename columns, check texts and labels, and keep only what the task reads."""
        layout = self._layout(rows, where)
        own_names = [name for own in layout.values() for name in ((own,) if isinstance(own, str) else own)]
        if not len(rows):
            raise GPT1Error(f"{where}: the file has no rows")
        more = ("idx", "subset") if self.subsets else ("idx",)
        rows = rows.select_columns([*own_names, *(name for name in more if name in rows.column_names)])
        if "idx" not in rows.column_names:
            rows = rows.add_column("idx", list(range(len(rows))))
        label, number = rows.features[layout["label"]], rows.features["idx"]
        if not isinstance(label, Value | ClassLabel) or label.dtype.startswith(NO_LABELS):
            raise GPT1Error(f"{where}: column {layout['label']!r} holds {_short(label)}, which are no labels")
        if not isinstance(number, Value) or not re.match("u?int|(large_)?string", number.dtype):
            raise GPT1Error(f"{where}: column 'idx' holds {_short(number)}, which number no rows")
        for own in rows.column_names:
            try:
                rows.data.column(own).validate(full=True)
            except pa.ArrowInvalid as error:  # bytes that are no UTF-8, which the reader of JSON lines lets pass
                raise GPT1Error(f"{where}: column {own!r} is damaged ({str(error).split(chr(10))[0]})") from error
        for own in own_names:
            _check_no_gaps(rows, own, where, is_label=own == layout["label"])
            if own == layout["label"] or own == layout.get("choices"):
                continue
            if rows.features[own] not in (Value("string"), Value("large_string")):
                raise GPT1Error(f"{where}: column {own!r} holds {_short(rows.features[own])}, which is not text")
            rows = rows.cast_column(own, Value("string"))

        for name, own in layout.items():
            if not isinstance(own, str):
                values = zip(*(rows[part][:] for part in own), strict=True)
                joined = [list(texts) if name == "choices" else " ".join(texts) for texts in values]
                rows = rows.remove_columns(list(own)).add_column(name, joined)
        rows = rows.rename_columns({own: name for name, own in layout.items() if own != name and isinstance(own, str)})
        if self.input_format == "multiple_choice" and "question" not in layout:
            rows = rows.add_column("question", [""] * len(rows))

        if "choices" in layout:
            self._check_choices(rows, where)
        rows = self._number_labels(rows, where)
        if self.drop_unlabelled:
            labelled = np.flatnonzero(np.array(rows["label"][:]) != -1)
            if len(labelled) < len(rows):
                logger.info(f"{where}: {len(rows) - len(labelled)} rows without a gold label are left out")
                rows = rows.select(labelled)
        names = INPUT_FORMATS.get(self.input_format, tuple(self.columns))
        return rows.select_columns([*names, "label", "idx", *(["subset"] if "subset" in rows.column_names else [])])

    def _layout(self, rows: Dataset, where: str) -> dict[str, str | tuple[str, ...]]:
        """Which of the task's layouts the file has; if none, its first missing column is an error."""
        missing_of = []
        for layout in ({**self.columns, "label": self.label_column}, *self.other_layouts):
            names = [name for own in layout.values() for name in ((own,) if isinstance(own, str) else own)]
            missing = [name for name in names if name not in rows.column_names]
            if not missing:
                return layout
            missing_of.append(missing)
        missing = min(missing_of, key=len)
        raise GPT1Error(f"{where}: column {missing[0]!r} is missing; the file has {', '.join(rows.column_names)}")

    def _check_choices(self, rows: Dataset, where: str):
        expected = len(self.label_names)
        for index, choices in zip(rows["idx"][:], rows["choices"][:], strict=True):
            if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
                raise GPT1Error(f"{where}: the choices of row {index} are {choices!r}, which is not a list of texts")
            if len(choices) != expected:
                raise GPT1Error(
                    f"{where}: row {index} has {len(choices)} choices, but every row of task {self.id} has {expected}"
                )
            if not all(choice.strip() for choice in choices):
                empty = next(n for n, choice in enumerate(choices) if not choice.strip())
                raise GPT1Error(f"{where}: choice {self.label_names[empty]} of row {index} is empty")

    def _number_labels(self, rows: Dataset, where: str) -> Dataset:
        """Labels as class ids, or scores as floats."""
        names = getattr(rows.features["label"], "names", None)
        if names is not None and tuple(names) != self.label_names:
            raise GPT1Error(f"{where}: the labels are named {names}, but the task's are {list(self.label_names)}")
        unique = rows.unique("label")
        if self.score_range:
            low, high = self.score_range
            for label in unique:
                if isinstance(label, str) or math.isnan(label) or (label != -1 and not low <= label <= high):
                    raise GPT1Error(f"{where}: label {label!r} is outside the scores {low:g} to {high:g}")
            scores = [round(float(label), 6) for label in rows["label"][:]]  # GLUE's are in fp32: 3.8 is 3.79999995
            return rows.remove_columns("label").add_column("label", scores)
        if self.label_ids is not None:
            ids = {**self.label_ids, "-1": -1}
            for label in unique:
                if str(label) not in ids:
                    raise GPT1Error(f"{where}: label {label!r} is outside the set {', '.join(self.label_ids)}")
            numbered = [ids[str(label)] for label in rows["label"][:]]
            return rows.remove_columns("label").add_column("label", numbered)
        for label in unique:
            if not isinstance(label, int) or not -1 <= label < len(self.label_names):
                raise GPT1Error(
                    f"{where}: label {label!r} is outside the set 0 to {len(self.label_names) - 1} "
                    f"({', '.join(self.label_names)})"
                )
        return rows if rows.features["label"] == Value("int64") else rows.cast_column("label", Value("int64"))

    def __post_init__(self):
        if self.input_format is None:
            return
        optional = {"question"} if self.input_format == "multiple_choice" else set()
        if set(self.columns) | optional != set(INPUT_FORMATS[self.input_format]):
            raise ValueError(f"task {self.id}: the format {self.input_format} reads other columns")


def with_subsets(rows: Dataset, subsets: list[str]) -> Dataset:
    """Rows with the subset that each is of, whatever their file says of subsets."""
    return rows.remove_columns([name for name in rows.column_names if name == "subset"]).add_column("subset", subsets)


def _short(feature: Any) -> str:
    """A column's type in a few words."""
    return str(getattr(feature, "dtype", None) or type(feature).__name__.lower())


def _check_no_gaps(rows: Dataset, column: str, where: str, is_label: bool):
    """Raise if a row has no value in a column, as the last line of a CSV that was cut off has not."""
    nothing = (None, "") if is_label else (None,)  # an empty text is the processor's to warn of
    if rows.data.column(column).null_count or (is_label and "" in rows.unique(column)):
        for index, value in zip(rows["idx"][:], rows[column][:], strict=True):
            if value in nothing:
                raise GPT1Error(f"{where}: row {index} has no {column!r}; was the file cut off there?")
