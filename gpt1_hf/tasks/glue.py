"""Tasks of the GLUE benchmark (Wang et al., 2018): the data set `nyu-mll/glue`, a configuration each."""

from .task import Task


TASKS = [
    Task(
        id="cola",
        dataset="nyu-mll/glue",
        config="cola",
        input_format="classification",
        columns={"text": "sentence"},
        label_names=("unacceptable", "acceptable"),
        metric="matthews_correlation",
        paper=45.4,
        notes="Linguistic acceptability (Warstadt et al., 2018); 8,551 training and 1,043 validation sentences.",
    ),
    Task(
        id="sst2",
        dataset="nyu-mll/glue",
        config="sst2",
        input_format="classification",
        columns={"text": "sentence"},
        label_names=("negative", "positive"),
        metric="accuracy",
        paper=91.3,
        notes="Sentiment of film reviews (Socher et al., 2013); 67,349 training phrases, 872 validation sentences.",
    ),
]
