"""What a task says: where its rows are, what they mean, and how they are scored."""

from dataclasses import dataclass, field
from pathlib import Path


# Input format -> its canonical columns: those of [`GPT1Processor`], whose module is too heavy to import here (a test
# compares them), and the one that only the token-classification head reads.
FORMAT_COLUMNS: dict[str, tuple[str, ...]] = {
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("text_a", "text_b"),
    "multiple_choice": ("document", "question", "choices"),
    "token_classification": ("words",),
}
OPTIONAL_COLUMNS = ("question",)
# Kind of labels -> the metrics that score it, the default first.
LABEL_METRICS: dict[str, tuple[str, ...]] = {
    "classes": ("accuracy", "f1", "matthews_correlation"),
    "multiple": ("f1_micro",),
    "scores": ("pearson", "spearman"),
    "tags": ("accuracy",),
}
SPLITS = ("train", "validation", "test")

Columns = dict[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class TaskSpec:
    """
    The settings of a [`Task`].

    Args:
        id (`str`):
            Name of the task, its file, its recipe, its command-line value and its row of results.
        dataset (`str`, *optional*):
            Hub id of the data set; `None` if `files` holds the rows.
        input_format (`str`, *optional*):
            Format of [`GPT1Processor`], or `token_classification`; `None` for a task that is only scored zero-shot.
        columns (`dict[str, str | tuple[str, ...]]`):
            Canonical column -> column or columns of the data set. Several texts are joined by a space; several
            `choices` become a list. Without `question`, the question of a multiple choice is empty.
        label_names (`tuple[str, ...]`):
            Names of the classes or of the choices, in the order of their ids; empty for scores.
        metric (`str`):
            Main metric, a key of [`gpt1_hf.evaluation.metrics.METRICS`]; higher is better for all.
        paper (`float`, *optional*):
            The paper's number on the (hidden) test set: on the whole split or, unless `pooled`, on the first subset.
        config (`str`, *optional*):
            Configuration of the Hub repository.
        other_configs (`tuple[str, ...]`):
            Configurations that a local copy may hold instead.
        revision (`str`, *optional*):
            Revision of the Hub repository that the task was written for.
        splits (`tuple[str, ...]`):
            Splits that exist, out of `train`, `validation` and `test`.
        scored_splits (`tuple[str, ...]`):
            Splits that a fine-tuned model is scored on.
        label_column (`str`):
            Label column of the data set.
        other_layouts (`tuple[dict, ...]`):
            Other column names that copies of the data use: as `columns`, plus `label`.
        label_ids (`dict[str, int]`, *optional*):
            Class id of each label, if the labels are not class ids.
        score_range (`tuple[float, float]`, *optional*):
            Lowest and highest label, if labels are scores.
        sizes (`dict[str, int]`):
            Rows of each split or subset in the whole data set; a result on fewer rows is marked as such.
        subsets (`dict[str, tuple[float, float]]`):
            Separately scored subset of the evaluation splits -> the paper's number on it, and the best before the
            paper. A subset of a split is itself a split, such as `validation_matched`.
        pooled (`bool`):
            Whether the subsets are also scored together.
        other_metrics (`tuple[str, ...]`):
            Further metrics to report.
        prior (`float`, *optional*):
            Best number before the paper.
        drop_unlabelled (`bool`):
            Whether rows with the label −1 are dropped (SNLI: no gold label) instead of predicted.
        download (`str`):
            How to get the data, if the Hub does not have it.
        version (`int`):
            Version of the task; a change that affects its numbers increases it.
        notes (`str`):
            Remarks on the data.
        code (`str`, *optional*):
            Module of this folder whose `read` reads the splits, if YAML cannot describe them; built-in tasks only.
        labels (`str`, *optional*):
            Kind of labels: `classes`, `multiple` (several labels a row), `scores`, or `tags` (one label a word).
            `None` until [`Task.resolved`] infers it.
        regression_bins (`int`, *optional*):
            Learn scores as a distribution over the whole numbers from 0 to this minus 1, instead of by squared error.
        files (`dict[str, str]`):
            Split -> absolute path of its data file, instead of `dataset`.
        validation_share (`float`, *optional*):
            Share of the training rows to hold out as the validation split; `None` if there is such a split.
        built_in (`bool`):
            Whether the task comes with the package.
    """

    id: str
    dataset: str | None
    input_format: str | None
    columns: Columns
    label_names: tuple[str, ...]
    metric: str
    paper: float | None
    config: str | None = None
    other_configs: tuple[str, ...] = ()
    revision: str | None = None
    splits: tuple[str, ...] = SPLITS
    scored_splits: tuple[str, ...] = ("validation",)
    label_column: str = "label"
    other_layouts: tuple[Columns, ...] = ()
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
    code: str | None = None
    labels: str | None = "classes"
    regression_bins: int | None = None
    files: dict[str, str] = field(default_factory=dict)
    validation_share: float | None = None
    built_in: bool = True

    def __post_init__(self):
        if self.input_format is None:
            return
        needed = FORMAT_COLUMNS[self.input_format]
        if {*needed} - {*self.columns, *OPTIONAL_COLUMNS} or {*self.columns} - {*needed}:
            raise ValueError(
                f"task {self.id}: the format {self.input_format} reads the columns {', '.join(needed)}, not "
                f"{', '.join(self.columns)}"
            )

    @property
    def is_complete(self) -> bool:
        """Whether nothing has to be inferred from the training rows."""
        if self.built_in:
            return True
        labels = self.score_range if self.labels == "scores" else self.label_ids
        return bool(self.labels and labels and self.metric and self.splits)

    def parts(self, split: str) -> dict[str, str | None]:
        """Splits under which a split's rows are scored -> subset of each; `None` is the whole split."""
        _, _, subset = split.partition("_")
        if subset in self.subsets:
            return {split: subset}
        whole = {split: None} if self.pooled or not self.subsets else {}
        return {**whole, **{f"{split}_{subset}": subset for subset in self.subsets}}

    def numbers(self, subset: str | None) -> tuple[float | None, float | None]:
        """The paper's number and the best before it, on a subset or on the whole split (`None`)."""
        return (self.paper, self.prior) if subset is None else self.subsets[subset]

    def is_hidden(self, label: int | float | list) -> bool:
        """Whether a label from [`Task.load`] is hidden (−1). In a range of scores, −1 can be a score."""
        return label == -1 and not (self.score_range and self.score_range[0] <= -1)

    @property
    def source(self) -> str:
        """Name of the data in results and cards: the Hub id, or the training file's name without its folder."""
        return self.dataset or Path(self.files["train"]).name
