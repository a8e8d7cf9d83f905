"""Two pipelines: `"multiple-choice"`, which transformers lacks, and `"text-classification"` with GPT-1's processor.

Both build sequences with the model's [`GPT1Processor`] and batch them with [`GPT1DataCollator`], so that they predict
what `gpt1 evaluate` predicts.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from transformers import (
    AutoModelForMultipleChoice,
    BatchEncoding,
    Pipeline,
    PreTrainedModel,
    TextClassificationPipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.text_classification import ClassificationFunction

from .configuration_gpt1 import GPT1FamilyConfig
from .modeling_gpt1_cpu import fast_inference
from .processing_gpt1 import GPT1Processor
from .training_record import check_tokenizer, row_length


def as_list(rows: Mapping[str, Any] | list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of a batch. The library passes a single row without a list."""
    return [rows] if isinstance(rows, Mapping) else rows


def as_batch(processor: GPT1Processor, rows: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Collate a processor's rows into a batch."""
    from .data.batching import GPT1DataCollator  # lazy: importing the package loads only the family

    return GPT1DataCollator(processor)(rows)


def encoded(
    model: PreTrainedModel, processor: GPT1Processor, row: Mapping[str, Any], max_length: int | None
) -> BatchEncoding:
    """Process a row, cut to `max_length` or else to the length that `gpt1 evaluate` uses."""
    if max_length is None:
        max_length = row_length(model.config, processor.tokenizer)
    return processor(row, max_length=max_length)


class MultipleChoicePipeline(Pipeline):
    """
    Answers rows with a multiple-choice model and its [`GPT1Processor`].

    Rows have the processor's columns: `document`, `choices` (two or more texts) and optionally `question`.

    Example:

    ```python
    >>> answer = pipeline("multiple-choice", model="runs/story_cloze")
    >>> answer({"document": "The wind blew the sign away.", "choices": ["It was found in a tree.", "It was sunny."]})
    {'answer': 'It was found in a tree.', 'index': 0, 'score': 0.6...}
    ```

    Args:
        top_k (`int`, *optional*, defaults to 1):
            Number of answers to return, most probable first; `None` returns all. Unless it is 1, the result is a list.
        max_length (`int`, *optional*):
            Longest sequence in tokens; defaults to the length in the model's training or, if unknown, to the smaller
            of the model's and the tokenizer's context lengths.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        name = self.model.name_or_path
        # The class is not checked, because a Hub folder may come with its own copy of it.
        if (own_format := getattr(self.processor, "input_format", None)) != "multiple_choice":
            raise ValueError(
                f"the multiple-choice pipeline needs a multiple_choice processor, but {name!r} has the format "
                f"{own_format!r}: use a model that was fine-tuned on a multiple choice, such as RACE"
            )
        check_tokenizer(self.model.config, self.processor.tokenizer, name)

    def _sanitize_parameters(self, **settings):
        if unknown := settings.keys() - {"top_k", "max_length"}:
            raise ValueError(
                f"the multiple-choice pipeline has no setting {', '.join(sorted(unknown))}: its settings are top_k "
                "and max_length, and document, question and choices belong in one dictionary"
            )
        preprocess = {name: settings[name] for name in ("max_length",) if name in settings}
        postprocess = {name: settings[name] for name in ("top_k",) if name in settings}
        return preprocess, {}, postprocess

    def __call__(self, inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]], **settings):
        """
        Answer a row, a list of rows, or any other iterable that the library's pipelines accept.

        Returns:
            `dict` with `answer`, its `index` among the choices, and `score`, its probability; with `top_k` other than
            1, a list of them. For several rows, a list of these results.

        Raises:
            ValueError: if a text is missing or empty, or rows of one batch have unequal numbers of choices.
        """
        return super().__call__(inputs, **settings)

    def save_pretrained(self, save_directory: str | PathLike, **kwargs):
        """Save model and processor. The library's own method saves no processor, so its folder would not load."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def preprocess(self, inputs: Mapping[str, Any], max_length: int | None = None) -> dict[str, Any]:
        if not isinstance(inputs, Mapping):
            raise ValueError(f"pass rows as dictionaries with document, question and choices, not {inputs!r}")
        row = encoded(self.model, self.processor, inputs, max_length)
        return {"row": dict(row), "choices": list(inputs["choices"])}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        rows = as_list(model_inputs["row"])
        if len({len(row["input_ids"]) for row in rows}) > 1:
            raise ValueError("the rows of a batch need equal numbers of choices: set batch_size=1")
        batch = self._ensure_tensor_on_device(as_batch(self.processor, rows), self.device)
        with fast_inference(self.device):
            logits = self.model(**batch, use_cache=False).logits
        return {"logits": logits, "choices": model_inputs["choices"]}

    def postprocess(self, model_outputs: dict[str, Any], top_k: int | None = 1) -> dict[str, Any] | list:
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}: set it to at least 1, or to None for all answers")
        scores = model_outputs["logits"][0].float().softmax(-1)  # (choices,)
        order = torch.argsort(scores, descending=True, stable=True).tolist()
        choices = model_outputs["choices"]
        answers = [{"answer": choices[index], "index": index, "score": scores[index].item()} for index in order]
        return answers[0] if top_k == 1 else answers[:top_k]


PIPELINE_REGISTRY.register_pipeline(
    "multiple-choice", pipeline_class=MultipleChoicePipeline, pt_model=AutoModelForMultipleChoice, type="text"
)


class GPT1TextClassificationPipeline(TextClassificationPipeline):
    """
    transformers' text classification, in which the texts for a GPT-1 pass through its [`GPT1Processor`].

    transformers' own class passes the tokenizer's output to the model. That is a single sequence, but the similarity
    format needs two (both orders, paper §3.3). It also treats the score of a regression as a logit. `import gpt1_hf`
    replaces the class in transformers' registry. For other models, and for a GPT-1 whose tokenizer was not saved by a
    processor, the behavior stays the same.

    The input is a text, or a pair as `{"text": ..., "text_pair": ...}` or in the processor's columns (`premise` and
    `hypothesis`; `text_a` and `text_b`). The processor cuts texts that are too long.

    Example:

    ```python
    >>> classify = pipeline("text-classification", model="runs/mrpc")
    >>> classify({"text": "An old man sleeps.", "text_pair": "A man is asleep."}, top_k=None)
    [{'label': 'equivalent', 'score': 0.7...}, {'label': 'not_equivalent', 'score': 0.2...}]
    ```

    Args:
        max_length (`int`, *optional*):
            Longest sequence in tokens; defaults to the length in the model's training or, if unknown, to the smaller
            of the model's and the tokenizer's context lengths.
        top_k, function_to_apply (*optional*):
            As in transformers' class. By default, the score of a regression is returned unchanged.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.processor = None
        input_format = self.tokenizer.init_kwargs.get("input_format") if self.tokenizer is not None else None
        if input_format is None:
            return
        if input_format == "multiple_choice":
            raise ValueError(
                f"the tokenizer of {self.model.name_or_path!r} has the multiple-choice format: use "
                'pipeline("multiple-choice")'
            )
        self.processor = GPT1Processor(self.tokenizer, input_format)
        self.tokenizer = self.processor.tokenizer
        check_tokenizer(self.model.config, self.tokenizer, self.model.name_or_path)

    def check_model_type(self, supported_models):
        if not isinstance(self.model.config, GPT1FamilyConfig):  # transformers' list lacks registered classes
            super().check_model_type(supported_models)

    def save_pretrained(self, save_directory: str | PathLike, **kwargs):
        """Save the model and its processor or, without one, its tokenizer."""
        super().save_pretrained(save_directory, **kwargs)
        if self.processor is not None:
            self.processor.save_pretrained(save_directory, **kwargs)

    def preprocess(self, inputs: Any, **settings) -> dict[str, Any]:
        if self.processor is None:
            return super().preprocess(inputs, **settings)
        # Rows are padded with their batch, so `padding` has no effect.
        max_length, truncation = settings.pop("max_length", None), settings.pop("truncation", True)
        if truncation not in (True, "longest_first") or settings.keys() - {"padding"}:
            raise ValueError(
                "a GPT-1's text-classification pipeline always truncates to max_length, the longer text of a pair "
                f"first, and has no setting {', '.join(settings.keys() - {'padding'}) or f'truncation={truncation}'}"
            )
        row = encoded(self.model, self.processor, self._row(inputs), max_length)
        return {"row": dict(row)}

    def _row(self, inputs: Any) -> dict[str, str]:
        """Convert an input to the processor's columns."""
        columns = self.processor.columns
        if isinstance(inputs, str):
            inputs = {"text": inputs}
        elif isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], list) and len(inputs[0]) == 2:
            inputs = dict(zip(("text", "text_pair"), inputs[0], strict=True))  # transformers' former form of a pair
        if isinstance(inputs, Mapping) and set(columns) <= inputs.keys() and inputs.get("text_pair") is None:
            return {name: inputs[name] for name in columns}
        names = ("text", "text_pair")[: len(columns)]
        given = {name for name, text in inputs.items() if text is not None} if isinstance(inputs, Mapping) else None
        if given != set(names):
            form = "a text" if len(columns) == 1 else 'a pair as {"text": ..., "text_pair": ...}'
            raise ValueError(f"a model of the {self.processor.input_format} format reads {form}, not {inputs!r}")
        return dict(zip(columns, (inputs[name] for name in names), strict=True))

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        if self.processor is None:
            return super()._forward(model_inputs)
        batch = self._ensure_tensor_on_device(as_batch(self.processor, as_list(model_inputs["row"])), self.device)
        with fast_inference(self.device):
            return {"logits": self.model(**batch, use_cache=False).logits}

    def postprocess(self, model_outputs: dict[str, torch.Tensor], function_to_apply=None, **settings) -> Any:
        config = self.model.config
        is_score = isinstance(config, GPT1FamilyConfig) and config.num_labels == 1 and config.problem_type is None
        if function_to_apply is None and is_score:
            function_to_apply = ClassificationFunction.NONE
        return super().postprocess(model_outputs, function_to_apply=function_to_apply, **settings)


# Replaces only transformers' class. The task's other entries (models, default) stay.
PIPELINE_REGISTRY.supported_tasks["text-classification"]["impl"] = GPT1TextClassificationPipeline
