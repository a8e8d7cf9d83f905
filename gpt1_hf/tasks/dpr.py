"""Definite pronouns: which of two candidates a pronoun stands for (Rahman and Ng, 2012); zero-shot only (§5)."""

from .task import Task


TASKS = [
    Task(
        id="dpr",
        dataset="community-datasets/definite_pronoun_resolution",
        config="plain_text",
        revision="0fdf659653e37a0a3bf8af0909a43969304b2b19",
        input_format=None,
        columns={"text": "sentence", "pronoun": "pronoun", "choices": "candidates"},
        label_names=("0", "1"),
        metric="accuracy",
        paper=None,
        scored_splits=("test",),
        sizes={"train": 1_322, "test": 564},
        notes="1,322 training and 564 test sentences, in pairs that differ in a few words and in the answer: chance "
        "is 50. Only the sample has a validation split. Of a pronoun that occurs more than once, the first is meant.",
    ),
]
