"""Layout of the paper's Tables 2 to 5, and their numbers that belong to no task (Radford et al., 2018).

Each task has its own numbers, see [`Task.numbers`]. All are on test sets, in percent.
"""

from dataclasses import dataclass
from typing import NamedTuple

from ...evaluation.seeds import mean
from ...tasks import load_task


class Column(NamedTuple):
    """A column of Tables 2 to 4: its title, the task, and the part of the evaluation split."""

    title: str
    task: str
    subset: str | None = None


TABLES = {
    "Table 2: natural language inference": (
        Column("MultiNLI matched", "mnli", "matched"),
        Column("MultiNLI mismatched", "mnli", "mismatched"),
        Column("SNLI", "snli"),
        Column("SciTail", "scitail"),
        Column("QNLI", "qnli"),
        Column("RTE", "rte"),
    ),
    "Table 3: question answering and commonsense reasoning": (
        Column("Story Cloze", "story_cloze"),
        Column("RACE middle", "race", "middle"),
        Column("RACE high", "race", "high"),
        Column("RACE", "race"),
    ),
    "Table 4: semantic similarity and classification": (
        Column("CoLA", "cola"),
        Column("SST-2", "sst2"),
        Column("MRPC", "mrpc"),
        Column("STS-B", "stsb"),
        Column("QQP", "qqp"),
    ),
}
# The leaderboard's overall score (Table 4): the best before the paper, and the paper's.
GLUE_PRIOR, GLUE_PAPER = 68.9, 72.8

# The columns of Table 5.
TABLE_5 = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")


@dataclass(frozen=True)
class Ablation:
    """
    A row of Table 5.

    Args:
        title (`str`):
            Name of the variant.
        average (`float`, *optional*):
            The printed average of the eight tasks.
        values (`tuple[float, ...]`, *optional*):
            The eight tasks' numbers, in the order of `TABLE_5`.
        claimed (`float`, *optional*):
            Change of the average according to a secondary source, for a variant that the paper does not report.
    """

    title: str
    average: float | None = None
    values: tuple[float, ...] = ()
    claimed: float | None = None

    @property
    def by_task(self) -> dict[str, float]:
        return dict(zip(TABLE_5, self.values, strict=False))


def full_model() -> tuple[float, ...]:
    """The full model's row of Table 5: the numbers of Tables 2 to 4, with the mean of MultiNLI's two sets."""
    values = []
    for task in map(load_task, TABLE_5):
        parts = [None] if task.pooled or not task.subsets else task.subsets
        values.append(round(mean([task.numbers(part)[0] for part in parts]), 1))
    return tuple(values)


# Variant, as plans name it -> row.
ABLATIONS = {
    "full": Ablation("transformer, auxiliary LM (full)", 74.7, full_model()),
    "no_pretraining": Ablation("no pre-training", 59.9, (18.9, 84.0, 79.4, 30.9, 65.5, 75.7, 71.2, 53.8)),
    "no_auxiliary": Ablation("no auxiliary LM", 75.0, (47.9, 92.0, 84.9, 83.2, 69.8, 81.1, 86.9, 54.4)),
    "lstm": Ablation("LSTM, auxiliary LM", 69.1, (30.3, 90.5, 83.2, 71.8, 68.1, 73.7, 81.1, 54.6)),
    "no_positions": Ablation("no position embeddings", claimed=-3.1),
    "sinusoidal": Ablation("sinusoidal positions"),
    "no_layers": Ablation("no transformer layers", claimed=-9.0),
    "embeddings_only": Ablation("only the embeddings transferred"),
}
