"""
Model cards that describe the actual run.

Names given by users (models, folders, corpora) are escaped, so they cannot break the metadata or the Markdown.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard import metadata_load
from transformers import PreTrainedConfig, TrainingArguments

from ..checkpoints.loading import open_config
from ..checkpoints.lora import adapter_base
from ..data.loading import local_copy
from ..evaluation.results import Result, part_of_text
from ..evaluation.seeds import with_spread
from ..resources import model_path
from ..tasks import Task
from .card_text import EXAMPLES, code, environment, hub_word, plain, snippet, widget, write_card
from .upload import is_repo_name


# Settings that a card shows.
SETTINGS = (
    "global_batch_size",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "dropout",
    "initializer_range",
    "position_initializer_range",
    "bf16",
    "seed",
)
FINETUNE_SETTINGS = (
    *SETTINGS[:-4],
    "classifier_dropout",
    "num_train_epochs",
    "max_train_examples",
    "held_out_share",
    "max_length",
    "bf16",
    "seed",
)
LORA_SETTINGS = ("lora_r", "lora_alpha", "lora_dropout")
# End of a class's name -> the Hub's name for its task.
PIPELINES = {
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForTokenClassification": "token-classification",
}
# Input format -> the end of its head's class, where that is not `ForSequenceClassification`.
HEADS = {"multiple_choice": "ForMultipleChoice", "token_classification": "ForTokenClassification"}
# Metric in percent -> the Hub's id and name. The Hub expects fractions.
HUB_METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "f1": ("f1", "F1"),
    "f1_micro": ("f1", "F1 (micro)"),
    "matthews_correlation": ("matthews_correlation", "Matthews correlation"),
    "pearson": ("pearsonr", "Pearson correlation"),
    "spearman": ("spearmanr", "Spearman correlation"),
}
# A card names at most so many labels.
MOST_LABELS = 20
# Marks a plain card, which the next run in the folder replaces.
PLAIN_MARK = "<!-- written by GPT1Trainer;"


def write_pretraining_card(
    folder: str | Path,
    args: TrainingArguments,
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
            Results of [`pretrain`].
        name (`str`, *optional*):
            Name of the model; defaults to the folder's.
        description (`str`, *optional*):
            A paragraph on the training data.
    """
    name = plain(name or Path(folder).resolve().name)
    details = results[0].details
    is_local = local_copy(args.corpus, args.data_dir) is not None or Path(args.corpus).exists()
    on_hub = not is_local and "/" in args.corpus and is_repo_name(args.corpus)
    corpus = args.corpus if on_hub else Path(args.corpus).name
    base, base_on_hub = base_name(args.model) if args.model else (None, False)
    # A perplexity on a part of the held-out text cannot be compared with one on all of it.
    scored = {"part": part_of_text(details)} if details.get("partial") else {}
    evaluations = [
        EvalResult(
            task_type="text-generation",
            dataset_type=args.corpus if on_hub else hub_word(corpus),
            dataset_name=plain(corpus),
            dataset_config=args.corpus_config,
            dataset_split=plain(result.split),
            dataset_revision=args.corpus_revision if on_hub else None,
            dataset_args={"documents": result.n_examples, **scored},
            metric_type=result.metric,
            metric_name=result.metric.replace("_", " "),
            metric_value=result.value,
            metric_args={"seed": result.seed, "n_seeds": 1, "window": details["window"]},
        )
        for result in results
    ]
    metadata = ModelCardData(
        language="en",
        license=license_of(args.model, from_scratch=False) if args.model else "mit",
        base_model=base if base_on_hub else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=model_tags(config),
        **widget("text-generation", None),
        datasets=[args.corpus] if on_hub else None,
        metrics=sorted({result.metric for result in results if result.metric != "bits_per_character"}),
        model_name=name,
        eval_results=evaluations,
    )
    write_card(
        folder,
        "pretrained",
        metadata,
        name=name,
        config=config,
        snippet=snippet(name, "AutoModelForCausalLM"),
        description=description,
        base=base,
        corpus=corpus,
        corpus_config=args.corpus_config,
        revision=args.corpus_revision if on_hub else None,
        details=details,
        scored_part=part_of_text(details),
        settings=shown_settings(args, SETTINGS),
        results=results,
        environment=environment(details["device"], details.get("processes", 1)),
    )


def write_finetuning_cards(args: TrainingArguments, task: Task, results: Sequence[Result]):
    """
    Write `README.md` beside each model or adapter of a fine-tuning run: one per seed, with its results and the mean.

    Args:
        args ([`FinetuneArguments`]):
            Settings of the run.
        task ([`Task`]):
            Task of the run.
        results (list of [`Result`]):
            Results of the seeds that are finished.
    """
    results = with_spread(results, {})
    for seed in sorted({result.seed for result in results}):
        folder = Path(args.output_dir) / f"seed-{seed}" if args.seeds > 1 else Path(args.output_dir)
        if (folder / "config.json").is_file():
            _write_finetuning_card(folder, args, task, results, seed)


def _write_finetuning_card(folder: Path, args: TrainingArguments, task: Task, results: Sequence[Result], seed: int):
    """Write the card of one seed's model."""
    name, config = plain(folder.resolve().name), open_config(str(folder))
    if re.fullmatch(r"seed-\d+", name):
        name = f"{plain(folder.resolve().parent.name)}-{name}"
    own = [result for result in results if result.seed == seed]
    seeds = sorted({result.seed for result in results})
    details = own[0].details
    dataset = None if args.sample else hub_dataset(task, args.data_dir)
    is_local = dataset is not None and local_copy(dataset, args.data_dir) is not None
    base, on_hub = base_name(args.model)
    adapter = {"base": base, "on_hub": on_hub} if adapter_base(str(folder)) else None
    head = HEADS.get(task.input_format, "ForSequenceClassification")
    metadata = ModelCardData(
        language="en",
        license=license_of(args.model, args.from_scratch),
        pipeline_tag=(pipeline := pipeline_tag(PIPELINES[head], task.input_format, adapter)),
        **widget(pipeline, task.input_format),
        datasets=[dataset] if dataset else None,
        base_model=base if on_hub and not args.from_scratch else None,
        **library(config, adapter, hub_word(task.id)),
        metrics=list(dict.fromkeys(HUB_METRICS[result.metric][0] for result in own)),
        model_name=name,
        eval_results=[
            _task_evaluation(task, result, dataset, args.sample, is_local, PIPELINES[head]) for result in own
        ],
    )
    rows = []
    for result in own:
        spread = _spread(result)
        over_seeds = f"{spread['mean']:.2f} ± {spread['std']:.2f}" if spread else ""
        rows.append({**vars(result), "rows": result.rows, "over_seeds": over_seeds})
    write_card(
        folder,
        "finetuned",
        metadata,
        name=name,
        config=config,
        snippet=snippet(name, f"AutoModel{head}", task.input_format, len(task.label_names), adapter),
        adapter=adapter,
        task=task,
        source=source_name(task, dataset),
        base=base,
        from_scratch=args.from_scratch,
        sample=args.sample,
        local_copy=is_local,
        details=details,
        answer=_answer(task),
        settings={
            **shown_settings(args, (*FINETUNE_SETTINGS, *(LORA_SETTINGS if args.peft else ()))),
            "seed": seed,
        },
        duration=f"{args.max_steps} updates" if args.max_steps > 0 else f"{details['epochs']:g} epochs",
        rows=rows,
        has_paper=any(result.paper is not None for result in own),
        has_prior=any(result.prior is not None for result in own),
        seed=seed,
        seeds=seeds,
        not_run=details.get("not_run", []),
        environment=environment(details["device"], args.world_size),
    )


def _spread(result: Result) -> dict[str, float]:
    """Mean and standard deviation over the seeds of a run; empty for a single seed."""
    found = result.details.get("over_seeds") or {"std": None}
    return {} if found["std"] is None else {"mean": found["mean"], "std": found["std"]}


def _answer(task: Task) -> str:
    """What a model of a task answers, for its card."""
    if task.input_format == "multiple_choice":
        return f"chooses one of {len(task.label_names)} answers"
    if task.score_range:
        low, high = task.score_range
        return "answers with a score" + ("" if math.isinf(low) else f" from {low:g} to {high:g}")
    shown = ", ".join(map(code, task.label_names[:MOST_LABELS]))
    more = len(task.label_names) - MOST_LABELS
    of_row = {"multiple": "any of ", "tags": "for each word "}.get(task.labels, "")
    return f"answers {of_row}{shown}" + (f" and {more} more labels" if more > 0 else "")


def hub_dataset(task: Task, data_dir: str | None = None) -> str | None:
    """Hub id of a task's data set; `None` where its rows are a user's own files or folder."""
    if not task.dataset:
        return None
    name, _, _ = task.dataset.partition("@")
    is_own = local_copy(name, data_dir) is None and Path(name).exists()
    return name if task.built_in or (is_repo_name(name) and not is_own) else None


def source_name(task: Task, dataset: str | None) -> str:
    """What to call a task's data: its Hub id, or the name of its file or folder, never their path."""
    return dataset or Path(task.source).name


def _task_evaluation(
    task: Task, result: Result, dataset: str | None, is_sample: bool, is_local: bool, pipeline: str
) -> EvalResult:
    """A result on a task, as the Hub's metadata."""
    rows_of_split, spread = result.details.get("rows_of_split"), _spread(result)
    split, config = plain(result.split), task.config
    dataset_args: dict[str, Any] = {"rows": result.n_examples}
    if rows_of_split is not None:
        dataset_args["rows_of_split"] = rows_of_split
    if split.startswith("held-out "):
        split, dataset_args["held_out"] = split.removeprefix("held-out "), True
    elif task.validation_share and split == "validation":
        dataset_args["held_out_share"] = task.validation_share
    whole, _, subset = split.partition("_")
    if config == "all" and subset in task.subsets:  # RACE's subsets are configurations on the Hub
        split, config = whole, subset
    if is_sample:
        names = {"dataset_type": f"{hub_word(task.id)}-sample", "dataset_name": f"{task.id} (a sample in gpt1_hf)"}
    elif dataset:
        revision = None if is_local else task.revision
        names = {
            "dataset_type": dataset,
            "dataset_name": plain(task.id),
            "dataset_config": config,
            "dataset_revision": revision,
        }
    else:
        source = plain(source_name(task, dataset))
        names = {"dataset_type": hub_word(source), "dataset_name": source}
    metric_type, metric_name = HUB_METRICS[result.metric]
    return EvalResult(
        task_type=pipeline,
        **names,
        dataset_split=split,
        dataset_args=dataset_args,
        metric_type=metric_type,
        metric_name=metric_name,
        metric_value=_fraction(result.value),
        metric_args={
            "seed": result.seed,
            "n_seeds": len(result.details["over_seeds"]["seeds"]) if spread else 1,
            **{name: _fraction(value) for name, value in spread.items()},
        },
    )


def _fraction(percent: float) -> float:
    return round(percent / 100, 4)


def write_plain_card(
    folder: str | Path,
    args: TrainingArguments | None = None,
    updates: int | None = None,
    n_train_examples: int | None = None,
    metrics: dict[str, float] | None = None,
    model_name: str | None = None,
    tags: Sequence[str] = (),
    origin: str | None = None,
    **metadata: Any,
):
    """
    Write `README.md` beside any model, from its folder and from facts that the caller adds.

    Args:
        folder (`str` or `Path`):
            The model's folder.
        args (`TrainingArguments`, *optional*):
            Settings of its training.
        updates (`int`, *optional*):
            Number of updates.
        n_train_examples (`int`, *optional*):
            Number of training rows.
        metrics (`dict[str, float]`, *optional*):
            Final evaluation, as the Trainer logs it.
        model_name (`str`, *optional*):
            Name of the model; defaults to the folder's.
        tags (list of `str`):
            Tags in addition to those of the model's type.
        origin (`str`, *optional*):
            How the weights came about, as the end of a sentence in Markdown; defaults to saving.
        metadata (*optional*):
            Further fields of `ModelCardData`.
    """
    folder = Path(folder)
    name, config = plain(model_name or folder.resolve().name), open_config(str(folder))
    head = plain((config.architectures or [type(config).__name__])[0])
    end = next((end for end in PIPELINES if head.endswith(end)), None)
    processor = folder / "processor_config.json"
    input_format = (
        json.loads(processor.read_text(encoding="utf-8")).get("input_format") if processor.is_file() else None
    )
    needs_processor = end in ("ForSequenceClassification", "ForMultipleChoice", "ForTokenClassification")
    base = adapter_base(str(folder))
    adapter = dict(zip(("base", "on_hub"), base_name(base), strict=True)) if base else None
    if adapter and adapter["on_hub"]:
        metadata.setdefault("base_model", base)
    pipeline = pipeline_tag(PIPELINES.get(end), input_format if needs_processor else None, adapter)
    card_data = ModelCardData(
        **{"language": "en", **widget(pipeline, input_format), **metadata},
        pipeline_tag=pipeline,
        **library(config, adapter, *map(plain, tags)),
    )
    known = input_format in EXAMPLES or not needs_processor
    write_card(
        folder,
        "plain",
        card_data,
        name=name,
        config=config,
        head=head,
        origin=origin or "saved with `gpt1_hf`",
        mark=f"{PLAIN_MARK} remove this line to keep the card -->",
        adapter=adapter,
        snippet=snippet(name, f"AutoModel{end or ''}", input_format if needs_processor else None, adapter=adapter)
        if known
        else None,
        settings=shown_settings(args, SETTINGS) if args else {},
        updates=updates,
        n_train_examples=n_train_examples,
        metrics={
            metric.removeprefix("eval_").replace("_", " "): value
            for metric, value in (metrics or {}).items()
            if metric.startswith("eval_") and not metric.endswith(("_runtime", "_per_second"))
        },
        environment=environment(str(args.device) if args else None, args.world_size if args else 1),
    )


def write_derived_card(folder: str | Path, source: str, how: str, relation: str | None = None):
    """
    Write `README.md` beside a model whose weights were made from those of another.

    Args:
        folder (`str` or `Path`):
            The model's folder.
        source (`str`):
            The other model: folder or Hub id.
        how (`str`):
            How they were made, such as `converted`.
        relation (`str`, *optional*):
            The Hub's name for it, such as `quantized`.
    """
    base, on_hub = base_name(source)
    metadata = {"base_model": base, "base_model_relation": relation} if on_hub else {}
    origin = f"{how} from {code(base)} with `gpt1_hf`"
    write_plain_card(folder, origin=origin, license=license_of(source, from_scratch=False), **metadata)


def is_plain_card(path: Path) -> bool:
    """Whether a card was written by [`write_plain_card`] and still has its mark."""
    return PLAIN_MARK in path.read_text(encoding="utf-8")


def pipeline_tag(task: str | None, input_format: str | None, adapter: dict[str, Any] | None) -> str | None:
    """
    Pipeline to show on the Hub. `None` where `pipeline(task, model)` does not work without this package: for adapters,
    for pairs that are read in both orders, and for words, whose tags are at their last tokens only.
    """
    return None if adapter or input_format in ("similarity", "token_classification") else task


def base_name(model: str) -> tuple[str, bool]:
    """A base model's name (for a folder, its last part), and whether it is a Hub id."""
    if Path(model_path(model)).exists():
        return Path(model).resolve().name, False
    return model, is_repo_name(model) and "/" in model


def library(config: PreTrainedConfig, adapter: dict[str, Any] | None, *tags: str) -> dict[str, Any]:
    """Metadata: the library that loads a model, its tags, and its relation to its base model."""
    tags = [*model_tags(config), *tags]
    if adapter is None:
        return {"library_name": "transformers", "tags": tags}
    relation = {"base_model_relation": "adapter"} if adapter["on_hub"] else {}
    return {"library_name": "peft", "tags": [*tags, "lora", "transformers"], **relation}


def model_tags(config: PreTrainedConfig) -> list[str]:
    """Tags of an architecture: the package's and the model type."""
    return list(dict.fromkeys(["gpt1", config.model_type]))


def license_of(base: str, from_scratch: bool) -> str | None:
    """License of a fine-tuned model: its base model's, if known."""
    if base == "openai-community/openai-gpt":
        return "mit"
    card = Path(model_path(base)) / "README.md"
    known = (metadata_load(card) or {}).get("license") if card.is_file() else None
    return "mit" if from_scratch else known if isinstance(known, str) else None


def shown_settings(args: TrainingArguments, names: Sequence[str]) -> dict[str, Any]:
    """Settings that are not `None`, by name."""
    values = {name: getattr(args, name, None) for name in names}
    return {name: getattr(value, "value", value) for name, value in values.items() if value is not None}
