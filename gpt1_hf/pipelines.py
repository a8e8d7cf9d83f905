"""`pipeline("multiple-choice")`: which of several answers fits, by a model fine-tuned for RACE or Story Cloze.

transformers has pipelines for the other heads, but none for multiple choice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForMultipleChoice, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .provenance import check_tokenizer


class MultipleChoicePipeline(Pipeline):
    """
    Answers rows with a multiple-choice model and its [`GPT1Processor`].

    Rows have the processor's columns: `document`, `choices` (two texts or more) and, where there is one, `question`.

    Example:

    ```python
    >>> answer = pipeline("multiple-choice", model="runs/story_cloze")
    >>> answer({"document": "The wind blew the sign away.", "choices": ["It was found in a tree.", "It was sunny."]})
    {'answer': 'It was found in a tree.', 'index': 0, 'score': 0.6...}
    ```

    Args:
        top_k (`int`, *optional*, defaults to 1):
            Answers to return, the most probable first; `None` returns all. Unless it is 1, they are a list.
        max_length (`int`, *optional*):
            Longest sequence in tokens; defaults to the tokenizer's.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        name = self.model.name_or_path
        # Not by its class: of a folder on the Hub it may be the one that lies there.
        if (own_format := getattr(self.processor, "input_format", None)) != "multiple_choice":
            raise ValueError(
                f"the multiple-choice pipeline needs a processor of that format, but the one of {name!r} has the "
                f"format {own_format!r}: give it a model that was fine-tuned for RACE or Story Cloze"
            )
        check_tokenizer(self.model.config, self.processor.tokenizer, name)

    def _sanitize_parameters(self, **settings):
        if unknown := settings.keys() - {"top_k", "max_length"}:
            raise ValueError(
                f"the multiple-choice pipeline has no setting {', '.join(sorted(unknown))}: it has top_k and "
                "max_length, and takes document, question and choices as one dictionary"
            )
        preprocess = {name: settings[name] for name in ("max_length",) if name in settings}
        postprocess = {name: settings[name] for name in ("top_k",) if name in settings}
        return preprocess, {}, postprocess

    def __call__(self, inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]], **settings):
        """
        Answer a row, a list of rows, or whatever else the library's pipelines iterate over.

        Returns:
            `dict` with `answer`, its `index` among the choices, and `score`, its probability; or, by `top_k`, a list
            of them. For several rows, a list of these.

        Raises:
            ValueError: if a text is missing or empty, or rows of one batch have unequal numbers of choices.
        """
        return super().__call__(inputs, **settings)

    def preprocess(self, inputs: Mapping[str, Any], max_length: int | None = None) -> dict[str, Any]:
        if not isinstance(inputs, Mapping):
            raise ValueError(f"give rows as dictionaries with document, question and choices, not {inputs!r}")
        return {"row": dict(self.processor(inputs, max_length=max_length)), "choices": list(inputs["choices"])}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        rows = model_inputs["row"]
        rows = [rows] if isinstance(rows, Mapping) else rows  # the library makes lists of what is in a batch
        n_choices = {len(row["input_ids"]) for row in rows}
        if len(n_choices) > 1:
            raise ValueError("rows of a batch need equally many choices: set batch_size=1")
        # A row's sequences, one a choice, are padded with those of the other rows.
        flat = {name: [sequence for row in rows for sequence in row[name]] for name in rows[0]}
        padded = self.tokenizer.pad(flat, return_tensors="pt", verbose=False).to(self.device)
        inputs = {name: values.reshape(len(rows), *n_choices, -1) for name, values in padded.items()}
        return {"logits": self.model(**inputs).logits, "choices": model_inputs["choices"]}

    def postprocess(self, model_outputs: dict[str, Any], top_k: int | None = 1) -> dict[str, Any] | list:
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}: give at least 1, or None for all answers")
        scores = model_outputs["logits"][0].float().softmax(-1)  # (choices,)
        order = torch.argsort(scores, descending=True, stable=True).tolist()
        choices = model_outputs["choices"]
        answers = [{"answer": choices[index], "index": index, "score": scores[index].item()} for index in order]
        return answers[0] if top_k == 1 else answers[:top_k]


PIPELINE_REGISTRY.register_pipeline(
    "multiple-choice", pipeline_class=MultipleChoicePipeline, pt_model=AutoModelForMultipleChoice, type="text"
)
