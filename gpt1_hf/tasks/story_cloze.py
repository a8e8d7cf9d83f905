"""Story Cloze: the right one of two endings of a story in four sentences (Mostafazadeh et al., 2016)."""

import logging

from datasets import Dataset
from sklearn.model_selection import train_test_split

from ..data.loading import local_copy, open_dataset, split_files
from ..errors import GPT1Error, MissingSplitError
from .task import Task


logger = logging.getLogger(__name__)

# The released code trains on the official validation stories, and holds some of them out (datasets.py, `rocstories`).
OFFICIAL_ROWS, HELD_OUT, SEED = 1871, 374, 3535999445
FILES = {
    "validation": "cloze_test_val__spring2016*.csv",
    "test": "cloze_test_test__spring2016*.csv",
}


class StoryCloze(Task):
    """The data come on request as two CSV files; `train` and `validation` are parts of the official validation set."""

    def read(self, split: str, data_dir: str | None, sample: bool) -> dict[str, Dataset]:
        if sample:
            return super().read(split, data_dir, sample)
        folder = local_copy(self.dataset, data_dir)
        if folder is None or not folder.is_dir():
            raise GPT1Error(f"cannot load {self.dataset!r}: {self.download}")
        official = "test" if split == "test" else "validation"
        files = sorted(folder.glob(FILES[official])) or split_files(folder, official)
        if not files:
            raise MissingSplitError(f"{folder} has no file of the {official} stories, such as {FILES[official]}")
        rows = open_dataset(str(files[0]), official)
        if "idx" in rows.column_names:
            rows = rows.remove_columns("idx")
        rows = rows.add_column("idx", list(range(len(rows))))
        if split == "test":
            return {split: rows}
        held_out = HELD_OUT
        if len(rows) != OFFICIAL_ROWS:
            held_out = round(len(rows) * HELD_OUT / OFFICIAL_ROWS)
            logger.warning(
                f"{files[0]} has {len(rows)} stories, not the {OFFICIAL_ROWS} of the official file: {held_out} are "
                f"held out, in place of {HELD_OUT}"
            )
            if not 0 < held_out < len(rows):
                raise GPT1Error(f"{files[0]} has {len(rows)} stories, too few to hold some out for validation")
        train, validation = train_test_split(range(len(rows)), test_size=held_out, random_state=SEED)
        return {split: rows.select(train if split == "train" else validation)}


TASKS = [
    StoryCloze(
        id="story_cloze",
        dataset="LSDSem/story_cloze",
        scored_splits=("validation", "test"),
        input_format="multiple_choice",
        columns={
            "document": tuple(f"InputSentence{n}" for n in (1, 2, 3, 4)),
            "choices": ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2"),
        },
        label_column="AnswerRightEnding",
        other_layouts=(
            {
                "document": tuple(f"input_sentence_{n}" for n in (1, 2, 3, 4)),
                "choices": ("sentence_quiz1", "sentence_quiz2"),
                "label": "answer_right_ending",
            },
        ),
        label_names=("1", "2"),
        label_ids={"1": 0, "2": 1},
        metric="accuracy",
        paper=86.5,
        prior=77.6,
        download="the stories are given on request (https://cs.rochester.edu/nlp/rocstories): put the two CSV files "
        "of spring 2016 into story_cloze/ in the folder that --data_dir (or GPT1_DATA_DIR) names",
        sizes={"train": OFFICIAL_ROWS - HELD_OUT, "validation": HELD_OUT, "test": 1_871},
        notes="Trained on 1,497 of the 1,871 official validation stories, with 374 held out (as the released code); "
        "the paper's number is on the 1,871 test stories, which are scored where there is a copy.",
    ),
]
