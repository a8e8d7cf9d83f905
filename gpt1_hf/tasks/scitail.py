"""SciTail: does the answer to a science question follow from a sentence of the web? (Khot et al., 2018)"""

from .task import Task


TASKS = [
    Task(
        id="scitail",
        dataset="allenai/scitail",
        config="snli_format",
        # `tsv_format` and `dgem_format` lack some of the 23,596 training pairs.
        other_configs=("tsv_format", "dgem_format"),
        revision="0cc4353235b289165dfde1c7c5d1be983f99ce44",
        input_format="entailment",
        columns={"premise": "premise", "hypothesis": "hypothesis"},
        other_layouts=({"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},),
        label_names=("entailment", "neutral"),
        label_ids={"entailment": 0, "entails": 0, "neutral": 1},
        metric="accuracy",
        paper=88.3,
        prior=83.3,
        sizes={"train": 23_596, "validation": 1_304, "test": 2_126},
        notes="23,596 training, 1,304 validation and 2,126 test pairs in snli_format; tsv_format has 23,097 training "
        "pairs and other names for columns and labels. The test labels are public.",
    ),
]
