"""Zero-shot performance through pre-training (Figure 2, right): relative performance against updates, by task."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ....evaluation.bootstrap import LEVEL, RESAMPLES
from ....evaluation.results import Result, interval_text
from ....figures import Figure, Series
from ..runs import CollectedRun, short_names
from ..sections import Section, Table, signed


# Folder of a checkpoint in that of its run: the Trainer's, and those of `--checkpoints_per_decade`.
CHECKPOINT = re.compile(r"/?(checkpoint|trajectory/update)-(\d+)/?$")
RELATIVE = "relative_performance"
RISES, OPEN = "rises", "open"
MOST_BANDS = 4  # in one figure
BANDS = f"Bands: {LEVEL} % intervals over the rows."
DOCUMENTS = "Where rows share a document, as RACE's questions do, whole documents are drawn."
RULE = (
    f"Intervals are {LEVEL} %, by a bootstrap over the rows ({RESAMPLES:,} resamples, percentiles). Chance is a "
    "random guess among the choices, or the best constant answer. A curve rises if the interval of its last point is "
    "above chance, and the interval of last minus first, paired over the same rows, is above 0. Otherwise the "
    "question is open."
)
HEADERS = [
    "task",
    "model",
    "updates",
    "relative performance",
    "score",
    f"{LEVEL} % interval",
    "chance",
    "last minus first",
    "verdict",
    "rows",
]


@dataclass
class Curve:
    """Scores of a run's checkpoints on a task, by number of updates."""

    task: str  # with its subset, see [`curve_name`]
    model: str
    setting: tuple  # the rows and the window
    label: str = ""
    own: dict[float, Result] = field(default_factory=dict)  # in the task's metric
    relative: dict[float, Result] = field(default_factory=dict)  # on Figure 2's scale

    @property
    def last(self) -> Result:
        """The last checkpoint's result: in the task's metric, if that is known."""
        points = self.own or self.relative
        return points[max(points)]

    def line(self, points: dict[float, Result], label: str, color: int | None = None) -> Series:
        """Points as a line with its band."""
        steps = [step for step in sorted(points) if step > 0]  # 0 has no logarithm
        return Series(
            label,
            [(step, points[step].value) for step in steps],
            dashed="lstm" in self.model.lower() or self.last.details.get("architecture") == "lstm",
            color=color,
            band=[points[step].details.get("interval") for step in steps],
        )


def section(runs: Sequence[CollectedRun]) -> Section:
    """Table of the last checkpoints, the paper's figure, and a figure for each task."""
    curves = read_curves(result for run in runs for result in run.results)
    names = short_names(curve.model for curve in curves)
    for curve in curves:
        curve.label = names[curve.model]
    for curve in curves:  # the same task of the same run, on other rows or in another window
        if sum((other.task, other.label) == (curve.task, curve.label) for other in curves) > 1:
            curve.label += f" ({curve.last.rows} rows, {curve.last.details.get('window')} tokens)"
    own = [curve for curve in curves if max(curve.own, default=0) > 0 and "interval" in curve.last.details]
    figures = [paper_figure(curves), *(task_figure(task, own) for task in dict.fromkeys(curve.task for curve in own))]
    rows = [cells(curve) for curve in curves]
    has_intervals = any("interval" in curve.last.details for curve in curves)
    note = f"{RULE} {DOCUMENTS}" if any(map(draws_documents, curves)) else RULE
    table = Table.of("Zero-shot, last checkpoint", HEADERS, rows, note if has_intervals else "")
    tables = [table] if rows else []
    return Section("Zero-shot performance", tables, figures)


def paper_figure(curves: Sequence[Curve]) -> Figure:
    """The paper's figure: relative performance on all tasks. It has bands if there are few enough to tell apart."""
    drawn = [curve for curve in curves if curve.relative]
    colors = {task: number for number, task in enumerate(sorted({curve.task for curve in drawn}))}
    has_bands = len(drawn) <= MOST_BANDS
    series: list[Series] = []
    for curve in drawn:
        line = curve.line(curve.relative, f"{curve.task}, {curve.label}", colors[curve.task])
        if any((line.color, line.dashed) == (other.color, other.dashed) for other in series):
            line = replace(line, marked=False)  # a second model of the same kind has no dots
        series.append(line if has_bands else replace(line, band=[]))
    caption = "Solid: transformer; dashed: LSTM. 0 is a random guess, 1 the best supervised result."
    return Figure(
        "zero_shot",
        "Zero-shot performance through pre-training (Figure 2, right)",
        "pre-training updates",
        "relative performance",
        series,
        log_x=True,
        caption=f"{caption} {bands(drawn)}" if any(any(line.band) for line in series) else caption,
    )


def task_figure(task: str, curves: Sequence[Curve]) -> Figure:
    """The curves of one task in its own metric, with bands and chance."""
    own = [curve for curve in curves if curve.task == task]
    chances = {curve.last.details["chance"] for curve in own}
    return Figure(
        f"zero_shot_{task}",
        f"Zero-shot performance on {task} through pre-training",
        "pre-training updates",
        own[0].last.metric.replace("_", " "),
        [curve.line(curve.own, curve.label) for curve in own],
        log_x=True,
        caption=bands(own),
        level=("chance", chances.pop()) if len(chances) == 1 else None,
    )


def bands(curves: Iterable[Curve]) -> str:
    """What the bands of curves show."""
    return f"{BANDS} {DOCUMENTS}" if any(map(draws_documents, curves)) else BANDS


def draws_documents(curve: Curve) -> bool:
    """Whether a curve's intervals are over whole documents. Earlier versions drew rows."""
    return curve.last.details.get("resampled") == "documents"


def read_curves(results: Iterable[Result]) -> list[Curve]:
    """The curves of zero-shot results, sorted by task and model. Figure 2's tasks come first."""
    found: dict[tuple, Curve] = {}
    zero_shot = [r for r in results if r.metric == RELATIVE or r.details.get("method") == "zero-shot"]
    for result in asked_for(zero_shot):
        setting = (result.details.get("rows_digest"), result.details.get("window"))
        key = (curve_name(result), run_of(result), setting)
        curve = found.setdefault(key, Curve(*key))
        points = curve.relative if result.metric == RELATIVE else curve.own
        points.setdefault(updates(result), result)
    return sorted(found.values(), key=lambda curve: (not curve.relative, curve.task, curve.model, str(curve.setting)))


def asked_for(results: Iterable[Result]) -> list[Result]:
    """
    Results without those of a split's subsets, which follow those of the whole. If the data lack a subset, there is no
    whole, and the first of the others counts.
    """
    splits: dict[tuple, str] = {}
    kept = []
    for result in results:
        key = (result.task, str(result.model), result.details.get("rows_digest"), result.details.get("updates"))
        if splits.setdefault(key, str(result.split)) == str(result.split):
            kept.append(result)
    return kept


def curve_name(result: Result) -> str:
    """A task, with its subset if only that was scored: `race`, `race:middle`."""
    _, _, subset = str(result.split).partition("_")
    return f"{result.task}:{subset}" if subset else result.task


def cells(curve: Curve) -> list[str]:
    """A curve's row of the table."""
    last, details = curve.last, curve.last.details if curve.own else {}
    return [
        curve.task,
        curve.label,
        f"{updates(last):,.0f}" if updates(last) else "–",
        f"{curve.relative[max(curve.relative)].value:.3f}" if curve.relative else "–",
        f"{last.metric} {last.value:.1f}" if curve.own else "",
        (interval_text(last, 1) or "–") if curve.own else "–",
        f"{details['chance']:.1f}" if "chance" in details else "–",
        change_text(details["change"]) if "change" in details else "–",
        verdict(last),
        last.rows,
    ]


def change_text(change: dict[str, Any]) -> str:
    """A difference with its interval, such as `+2.1 (+0.3 to +4.0), since update 10`."""
    low, high = change["interval"]
    return f"{signed(change['value'])} ({signed(low)} to {signed(high)}), since update {change['since']:,}"


def verdict(last: Result) -> str:
    """Whether a curve rises, by [`RULE`], from its last point. A dash if there are no intervals, or only one point."""
    interval, change = last.details.get("interval"), last.details.get("change")
    if interval is None or change is None:
        return "–"
    return RISES if interval[0] > last.details["chance"] and change["interval"][0] > 0 else OPEN


def run_of(result: Result) -> str:
    """Folder of the pre-training run of a checkpoint."""
    return str(result.details.get("run") or CHECKPOINT.sub("", str(result.model)) or result.model).rstrip("/")


def updates(result: Result) -> float:
    """Updates before a checkpoint; 0 if unknown."""
    if (known := result.details.get("updates")) is not None:
        return known
    found = CHECKPOINT.search(str(result.model))
    return int(found[2]) if found else 0
