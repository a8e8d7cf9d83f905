"""The model card that a run writes beside its weights, from what really ran."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedConfig

from ..evaluation.results import Result
from ..resources import card_template
from .arguments import PretrainArguments


# What of the settings a card shows.
SETTINGS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "dropout",
    "initializer_range",
    "bf16",
    "seed",
)


def write_pretraining_card(
    folder: str | Path,
    args: PretrainArguments,
    config: PreTrainedConfig,
    results: Sequence[Result],
    name: str | None = None,
    description: str | None = None,
):
    """
    Write `README.md` beside a pre-trained model.

    Args:
        folder (`str` or `Path`):
            The model's folder.
        args ([`PretrainArguments`]):
            Settings of the run.
        config (`PreTrainedConfig`):
            The model's configuration.
        results (list of [`Result`]):
            What [`pretrain`] returned.
        name (`str`, *optional*):
            Name of the model; defaults to the folder's.
        description (`str`, *optional*):
            A paragraph on the training data.
    """
    details = results[0].details
    shown: dict[str, Any] = {key: getattr(getattr(args, key), "value", getattr(args, key)) for key in SETTINGS}
    card = ModelCard.from_template(
        ModelCardData(
            language="en", license="mit", library_name="transformers", pipeline_tag="text-generation", tags=["gpt1"]
        ),
        template_path=str(card_template("pretrained")),
        name=name or Path(folder).name,
        description=description,
        corpus=args.corpus,
        config={**config.to_dict(), "n_parameters": details["n_parameters"]},
        details=details,
        settings=shown,
        results=results,
    )
    card.save(Path(folder) / "README.md")
