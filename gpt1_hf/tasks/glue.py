"""Tasks of the GLUE benchmark (Wang et al., 2018): the data set `nyu-mll/glue`, a configuration each.

The labels of its test splits are hidden (−1), but for MRPC's, whose test set was published before.
"""

from datasets import Dataset

from .task import Task


GLUE = {"dataset": "nyu-mll/glue", "revision": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"}


class MNLI(Task):
    """MultiNLI has two of each evaluation split: genres that are in train (matched), and others (mismatched)."""

    def read(self, split: str, data_dir: str | None, sample: bool) -> dict[str, Dataset]:
        if split == "train":
            return super().read(split, data_dir, sample)
        return self.open_subsets(split, lambda subset: self.open(f"{split}_{subset}", data_dir, sample))


TASKS = [
    Task(
        **GLUE,
        id="cola",
        config="cola",
        input_format="classification",
        columns={"text": "sentence"},
        label_names=("unacceptable", "acceptable"),
        metric="matthews_correlation",
        paper=45.4,
        prior=35.0,
        sizes={"train": 8_551, "validation": 1_043, "test": 1_063},
        notes="Linguistic acceptability (Warstadt et al., 2018); 8,551 training and 1,043 validation sentences.",
    ),
    Task(
        **GLUE,
        id="sst2",
        config="sst2",
        input_format="classification",
        columns={"text": "sentence"},
        label_names=("negative", "positive"),
        metric="accuracy",
        paper=91.3,
        prior=93.2,
        sizes={"train": 67_349, "validation": 872, "test": 1_821},
        notes="Sentiment of film reviews (Socher et al., 2013); 67,349 training phrases, 872 validation sentences, "
        "lower-cased and tokenized.",
    ),
    MNLI(
        **GLUE,
        id="mnli",
        config="mnli",
        input_format="entailment",
        columns={"premise": "premise", "hypothesis": "hypothesis"},
        label_names=("entailment", "neutral", "contradiction"),
        metric="accuracy",
        paper=82.1,
        prior=80.6,
        subsets={"matched": (82.1, 80.6), "mismatched": (81.4, 80.1)},
        sizes={
            "train": 392_702,
            "validation_matched": 9_815,
            "validation_mismatched": 9_832,
            "test_matched": 9_796,
            "test_mismatched": 9_847,
        },
        pooled=False,
        notes="MultiNLI (Williams et al., 2018); 392,702 training pairs, 9,815 matched and 9,832 mismatched "
        "validation pairs, each scored by itself; the number before the paper is of the matched.",
    ),
    Task(
        **GLUE,
        id="qnli",
        config="qnli",
        input_format="entailment",
        columns={"premise": "question", "hypothesis": "sentence"},
        label_names=("entailment", "not_entailment"),
        metric="accuracy",
        paper=88.1,
        prior=82.3,
        sizes={"train": 104_743, "validation": 5_463, "test": 5_463},
        notes="Does the sentence answer the question? From SQuAD (Rajpurkar et al., 2016); 104,743 training and 5,463 "
        "validation pairs. This is QNLI version 2; the paper's number is of version 1, which was withdrawn.",
    ),
    Task(
        **GLUE,
        id="rte",
        config="rte",
        input_format="entailment",
        columns={"premise": "sentence1", "hypothesis": "sentence2"},
        label_names=("entailment", "not_entailment"),
        metric="accuracy",
        paper=56.0,
        prior=61.7,
        sizes={"train": 2_490, "validation": 277, "test": 3_000},
        notes="Recognizing textual entailment, years 1, 2, 3 and 5; 2,490 training and 277 validation pairs, so that "
        "seeds differ by several points.",
    ),
    Task(
        **GLUE,
        id="mrpc",
        config="mrpc",
        input_format="similarity",
        columns={"text_a": "sentence1", "text_b": "sentence2"},
        label_names=("not_equivalent", "equivalent"),
        metric="f1",
        other_metrics=("accuracy",),
        paper=82.3,
        prior=86.0,
        sizes={"train": 3_668, "validation": 408, "test": 1_725},
        notes="Microsoft paraphrase corpus (Dolan and Brockett, 2005); 3,668 training and 408 validation pairs, two "
        "thirds of them paraphrases: answering so for all gives an F1 of 81. The test labels are public.",
    ),
    Task(
        **GLUE,
        id="qqp",
        config="qqp",
        input_format="similarity",
        columns={"text_a": "question1", "text_b": "question2"},
        label_names=("not_duplicate", "duplicate"),
        metric="f1",
        other_metrics=("accuracy",),
        paper=70.3,
        prior=66.1,
        sizes={"train": 363_846, "validation": 40_430, "test": 390_965},
        notes="Duplicate questions on Quora; 363,846 training and 40,430 validation pairs. The hidden test set has "
        "other shares of the classes: F1 is higher on validation.",
    ),
    Task(
        **GLUE,
        id="stsb",
        config="stsb",
        input_format="similarity",
        columns={"text_a": "sentence1", "text_b": "sentence2"},
        label_names=(),
        score_range=(0.0, 5.0),
        metric="pearson",
        other_metrics=("spearman",),
        paper=82.0,
        prior=81.0,
        sizes={"train": 5_749, "validation": 1_500, "test": 1_379},
        notes="Semantic textual similarity (Cer et al., 2017), a score from 0 to 5; 5,749 training and 1,500 "
        "validation pairs.",
    ),
]
