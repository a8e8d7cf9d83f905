"""SNLI: does a sentence follow from the caption of a picture? (Bowman et al., 2015)"""

from .task import Task


TASKS = [
    Task(
        id="snli",
        dataset="stanfordnlp/snli",
        config="plain_text",
        revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
        input_format="entailment",
        columns={"premise": "premise", "hypothesis": "hypothesis"},
        label_names=("entailment", "neutral", "contradiction"),
        metric="accuracy",
        paper=89.9,
        prior=89.3,
        drop_unlabelled=True,
        sizes={"train": 549_367, "validation": 9_842, "test": 9_824},
        notes="550,152 training pairs, of which the 785 without a gold label (-1) are left out; 9,842 validation and "
        "9,824 test pairs have one. The test labels are public.",
    ),
]
