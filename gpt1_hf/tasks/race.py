"""RACE: questions on English reading from Chinese middle and high schools, with four answers (Lai et al., 2017)."""

from datasets import Dataset

from ..errors import GPT1Error, MissingSplitError
from .task import Task, with_subsets


class RACE(Task):
    """
    The Hub has middle and high school as configurations, and both in `all`. A copy may have either: rows of `all` are
    told apart by `example_id`.
    """

    def read(self, split: str, data_dir: str | None, sample: bool) -> dict[str, Dataset]:
        try:
            rows = self.open(split, data_dir, sample, "all")
        except MissingSplitError:
            return self.open_subsets(split, lambda subset: self.open(split, data_dir, sample, subset))
        where = f"{self.id} ({split})"
        if "example_id" not in rows.column_names:
            raise GPT1Error(
                f"{where}: column 'example_id' is missing; the file has {', '.join(map(str, rows.column_names))}"
            )
        schools = []
        for name in rows["example_id"][:]:
            school = next((subset for subset in self.subsets if str(name).startswith(subset)), None)
            if school is None:
                raise GPT1Error(f"{where}: example_id {name!r} begins with neither 'middle' nor 'high'")
            schools.append(school)
        return {split: with_subsets(rows, schools)}


TASKS = [
    RACE(
        id="race",
        dataset="ehovy/race",
        config="all",
        revision="2fec9fd81f1dc971569a9b729c43f2f0e6436637",
        input_format="multiple_choice",
        columns={"document": "article", "question": "question", "choices": "options"},
        label_column="answer",
        label_names=("A", "B", "C", "D"),
        label_ids={"A": 0, "B": 1, "C": 2, "D": 3},
        metric="accuracy",
        paper=59.0,
        prior=53.3,
        subsets={"middle": (62.9, 60.2), "high": (57.4, 50.3)},
        sizes={
            "train": 87_866,
            "validation": 4_887,
            "validation_middle": 1_436,
            "validation_high": 3_451,
            "test": 4_934,
            "test_middle": 1_436,
            "test_high": 3_498,
        },
        notes="87,866 training, 4,887 validation (1,436 middle, 3,451 high) and 4,934 test questions. The test "
        "answers are public. A question may be a sentence with a blank, `_`.",
    ),
]
