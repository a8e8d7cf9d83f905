"""Texts, rows of data sets and settings for several tests."""

import json
from pathlib import Path


WORDS = (
    "the a old young captain lady house garden letter night morning walked spoke smiled wept answered gently slowly "
    "never always dark bright kind cruel good bad and but with from into upon her his their Mr. Mrs. don't it's"
).split()
STORY_COLUMNS = (
    "InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4,"
    "RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding"
)


def write_stories(path: Path, n: int, encoding: str = "utf-8", tail: str = "") -> Path:
    """Write Story Cloze as its authors do: CSV, with quotes only where needed. `tail` is appended as the last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'id-{i},One {i}.,"Two, {i}.",Three.,Four.,"""Good,"" she said.",NA,{1 + i % 2}\n' for i in range(n)]
    path.write_text(STORY_COLUMNS + "\n" + "".join(lines) + tail, encoding=encoding)
    return path


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# A pre-training run that takes hardly any time.
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
    "logging_steps": 1,
}
