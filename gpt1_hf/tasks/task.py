"""What a benchmark is: where its rows are, what they mean, and how it is scored."""

from dataclasses import dataclass, field

from datasets import Dataset, Value

from ..data.loading import open_dataset
from ..errors import GPT1Error
from ..processing_gpt1 import INPUT_FORMATS
from ..resources import SAMPLES


@dataclass(frozen=True)
class Task:
    """
    A benchmark of the paper (§4.2).

    Args:
        id (`str`):
            The one name of the task: its recipe, its command-line value, its row of results.
        dataset (`str`):
            Hub id of the data set.
        config (`str`, *optional*):
            Configuration of the Hub repository.
        input_format (`str`):
            Format of [`GPT1Processor`] that the rows take.
        columns (`dict[str, str]`):
            Canonical column -> the data set's own.
        label_names (`tuple[str, ...]`):
            Names of the classes, in the order of their ids.
        metric (`str`):
            Metric that the paper reports, a key of [`gpt1_hf.evaluation.metrics.METRICS`].
        paper (`float`):
            The paper's number, on the hidden test set.
        splits (`dict[str, str]`):
            `train`, `validation`, `test` -> the data set's own names of them.
        label_column (`str`):
            The data set's own name of the label.
        version (`int`):
            Raised when a change moves the numbers.
        notes (`str`):
            What to know of the data.
    """

    id: str
    dataset: str
    input_format: str
    columns: dict[str, str]
    label_names: tuple[str, ...]
    metric: str
    paper: float
    config: str | None = None
    splits: dict[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation", "test": "test"}
    )
    label_column: str = "label"
    version: int = 1
    notes: str = ""

    def load(self, split: str, data_dir: str | None = None, sample: bool = False) -> Dataset:
        """
        Load a split in canonical columns, plus `label` (class id) and `idx`.

        Args:
            split (`str`):
                `train`, `validation` or `test`.
            data_dir (`str`, *optional*):
                Folder with local copies laid out as on the Hub, searched before it.
            sample (`bool`, *optional*, defaults to `False`):
                Whether to load the small labelled sample in the package instead.

        Returns:
            `Dataset`. Hidden labels (−1) are left as they are.

        Raises:
            GPT1Error: if the split or a column is missing, or a label lies outside the task's set.
        """
        if split not in self.splits:
            raise GPT1Error(f"task {self.id} has no split {split!r}; choose one of {', '.join(self.splits)}")
        if sample:
            source = {"name": str(SAMPLES / self.id), "split": split}
        else:
            source = {"name": self.dataset, "config": self.config, "split": self.splits[split], "data_dir": data_dir}
        return self.canonical(open_dataset(**source), where=f"{self.id} ({split})")

    def canonical(self, rows: Dataset, where: str) -> Dataset:
        """Rename columns, check labels, and keep only what the task reads."""
        wanted = {**{own: name for name, own in self.columns.items()}, self.label_column: "label", "idx": "idx"}
        for own in wanted:
            if own != "idx" and own not in rows.column_names:
                raise GPT1Error(f"{where}: column {own!r} is missing; the file has {', '.join(rows.column_names)}")
        if not len(rows):
            raise GPT1Error(f"{where}: the file has no rows")
        if "idx" not in rows.column_names:
            rows = rows.add_column("idx", list(range(len(rows))))
        rows = rows.select_columns(list(wanted))
        rows = rows.rename_columns({own: name for own, name in wanted.items() if own != name})
        names = getattr(rows.features["label"], "names", None)
        if names is not None and tuple(names) != self.label_names:
            raise GPT1Error(f"{where}: the labels are named {names}, but the task's are {list(self.label_names)}")
        for label in rows.unique("label"):
            if not isinstance(label, int) or not -1 <= label < len(self.label_names):
                raise GPT1Error(
                    f"{where}: label {label!r} is outside the set 0 to {len(self.label_names) - 1} "
                    f"({', '.join(self.label_names)})"
                )
        return rows if rows.features["label"] == Value("int64") else rows.cast_column("label", Value("int64"))

    def __post_init__(self):
        if set(self.columns) != set(INPUT_FORMATS[self.input_format]):
            raise ValueError(f"task {self.id}: the format {self.input_format} reads other columns")
