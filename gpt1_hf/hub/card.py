"""
The model card that lies beside a model's weights, from what really ran.

What users name (models, folders, corpora) is escaped: it can break neither the metadata nor the Markdown.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard import metadata_load
from transformers import PreTrainedConfig, TrainingArguments

from ..checkpoints.loading import open_config
from ..checkpoints.lora import adapter_base
from ..data.loading import local_copy
from ..evaluation.results import Result
from ..resources import model_path
from ..tasks import Task
from ..training.arguments import FinetuneArguments, PretrainArguments
from .card_text import EXAMPLES, environment, hub_word, plain, snippet, write_card
from .upload import is_repo_name


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
FINETUNE_SETTINGS = (
    *SETTINGS[:-3],
    "classifier_dropout",
    "num_train_epochs",
    "max_train_examples",
    "held_out_share",
    "max_length",
    "bf16",
    "seed",
)
LORA_SETTINGS = ("lora_r", "lora_alpha", "lora_dropout")
# The Hub's names of tasks and metrics, where they are not ours.
PIPELINES = {
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForTokenClassification": "token-classification",
}
HUB_METRICS = {"pearson": "pearsonr", "spearman": "spearmanr"}
# In a plain card, which the next run in the folder may replace.
PLAIN_MARK = "<!-- written by GPT1Trainer; take this line out to keep the card -->"


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
    name = plain(name or Path(folder).resolve().name)
    details = results[0].details
    is_local = local_copy(args.corpus, args.data_dir) is not None or Path(args.corpus).exists()
    on_hub = not is_local and "/" in args.corpus and is_repo_name(args.corpus)
    corpus = args.corpus if on_hub else Path(args.corpus).name
    evaluations = [
        EvalResult(
            task_type="text-generation",
            dataset_type=args.corpus if on_hub else hub_word(corpus),
            dataset_name=plain(corpus),
            dataset_split=plain(result.split),
            dataset_revision=args.corpus_revision if on_hub else None,
            dataset_args={"documents": result.n_examples},
            metric_type=result.metric,
            metric_name=result.metric.replace("_", " "),
            metric_value=result.value,
            metric_args={"seed": result.seed, "n_seeds": 1, "window": details["window"]},
        )
        for result in results
    ]
    metadata = ModelCardData(
        language="en",
        license="mit",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=model_tags(config),
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
        corpus=corpus,
        revision=args.corpus_revision if on_hub else None,
        details=details,
        settings=shown_settings(args, SETTINGS),
        results=results,
        environment=environment(details["device"], details.get("processes", 1)),
    )


def write_finetuning_cards(args: FinetuneArguments, task: Task, results: Sequence[Result]):
    """
    Write `README.md` beside each model or adapter of a fine-tuning run, one a seed, with its own numbers and the mean.

    Args:
        args ([`FinetuneArguments`]):
            Settings of the run.
        task ([`Task`]):
            Its task.
        results (list of [`Result`]):
            What its seeds found so far.
    """
    for seed in sorted({result.seed for result in results}):
        folder = Path(args.output_dir) / f"seed-{seed}" if args.seeds > 1 else Path(args.output_dir)
        if (folder / "config.json").is_file():
            write_finetuning_card(folder, args, task, results, seed)


def write_finetuning_card(
    folder: str | Path, args: FinetuneArguments, task: Task, results: Sequence[Result], seed: int
):
    """Write `README.md` beside the model that a fine-tuning run made with one of its seeds."""
    name, config = plain(Path(folder).resolve().name), open_config(str(folder))
    if re.fullmatch(r"seed-\d+", name):
        name = f"{plain(Path(folder).resolve().parent.name)}-{name}"
    by_seed = defaultdict(list)
    for result in results:
        by_seed[result.split, result.metric].append(result)
    own = [result for result in results if result.seed == seed]
    seeds = sorted({result.seed for result in results})
    details = own[0].details
    local = local_copy(task.dataset, args.data_dir) is not None
    base, on_hub = base_name(args.model)
    adapter = {"base": base, "on_hub": on_hub} if adapter_base(str(folder)) else None
    pipeline = PIPELINES[
        "ForMultipleChoice" if task.input_format == "multiple_choice" else "ForSequenceClassification"
    ]
    evaluations, rows = [], []
    for result in own:
        values = [of_seed.value for of_seed in by_seed[result.split, result.metric]]
        spread = {"mean": round(fmean(values), 2), "std": round(stdev(values), 2)} if len(values) > 1 else {}
        whole = result.details.get("rows_of_split")
        of_whole = {} if whole is None else {"rows_of_split": whole}
        of_seeds = f"{spread['mean']:.2f} ± {spread['std']:.2f}" if spread else ""
        rows.append({**vars(result), "rows": result.rows, "spread": of_seeds})
        evaluations.append(
            EvalResult(
                task_type=pipeline,
                dataset_type=f"{hub_word(task.id)}-sample" if args.sample else task.dataset,
                dataset_name=f"{task.id} (a sample in gpt1_hf)" if args.sample else task.id,
                dataset_config=None if args.sample else task.config,
                dataset_split=plain(result.split),
                dataset_revision=None if args.sample or local else task.revision,
                dataset_args={"rows": result.n_examples, **of_whole},
                metric_type=HUB_METRICS.get(result.metric, result.metric),
                metric_name=result.metric.replace("_", " "),
                metric_value=result.value,
                metric_args={"seed": seed, "n_seeds": len(values), **spread},
            )
        )
    metadata = ModelCardData(
        language="en",
        license=license_of(args.model, args.from_scratch),
        pipeline_tag=pipeline_tag(pipeline, task.input_format, adapter),
        datasets=None if args.sample else [task.dataset],
        base_model=base if on_hub and not args.from_scratch else None,
        **library(config, adapter, hub_word(task.id)),
        metrics=list(dict.fromkeys(HUB_METRICS.get(result.metric, result.metric) for result in own)),
        model_name=name,
        eval_results=evaluations,
    )
    labels = [] if task.score_range or task.input_format == "multiple_choice" else list(task.label_names)
    auto = "AutoModelForMultipleChoice" if pipeline == "multiple-choice" else "AutoModelForSequenceClassification"
    write_card(
        folder,
        "finetuned",
        metadata,
        name=name,
        config=config,
        snippet=snippet(name, auto, task.input_format, len(task.label_names), adapter),
        adapter=adapter,
        task=task,
        base=base,
        from_scratch=args.from_scratch,
        sample=args.sample,
        local_copy=local,
        details=details,
        labels=labels,
        settings={
            **shown_settings(args, (*FINETUNE_SETTINGS, *(LORA_SETTINGS if args.peft else ()))),
            "seed": seed,
        },
        duration=f"{args.max_steps} updates" if args.max_steps > 0 else f"{details['epochs']:g} epochs",
        rows=rows,
        seed=seed,
        seeds=seeds,
        n_seeds=len(seeds),
        not_run=details.get("not_run", []),
        environment=environment(details["device"], args.world_size),
    )


def write_plain_card(
    folder: str | Path,
    args: TrainingArguments | None = None,
    updates: int | None = None,
    n_train_examples: int | None = None,
    metrics: dict[str, float] | None = None,
    model_name: str | None = None,
    tags: Sequence[str] = (),
    **metadata: Any,
):
    """
    Write `README.md` beside a model of whose making little is known: what its folder says, and the caller.

    Args:
        folder (`str` or `Path`):
            The model's folder.
        args (`TrainingArguments`, *optional*):
            Settings that it was trained with.
        updates (`int`, *optional*):
            Updates that it was trained for.
        n_train_examples (`int`, *optional*):
            Rows that it was trained on.
        metrics (`dict[str, float]`, *optional*):
            What it scored in the end, as the Trainer logs it.
        model_name (`str`, *optional*):
            Name of the model; defaults to the folder's.
        tags (list of `str`):
            Tags beside those of the model's type.
        metadata (*optional*):
            Further metadata of `ModelCardData`.
    """
    folder = Path(folder)
    name, config = plain(model_name or folder.resolve().name), open_config(str(folder))
    head = plain((config.architectures or [type(config).__name__])[0])
    end = next((end for end in PIPELINES if head.endswith(end)), None)
    processor = folder / "processor_config.json"
    input_format = (
        json.loads(processor.read_text(encoding="utf-8")).get("input_format") if processor.is_file() else None
    )
    needs_processor = end in ("ForSequenceClassification", "ForMultipleChoice")
    base = adapter_base(str(folder))
    adapter = dict(zip(("base", "on_hub"), base_name(base), strict=True)) if base else None
    if adapter and adapter["on_hub"]:
        metadata.setdefault("base_model", base)
    card_data = ModelCardData(
        **{"language": "en", **metadata},
        pipeline_tag=pipeline_tag(PIPELINES.get(end), input_format if needs_processor else None, adapter),
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
        mark=PLAIN_MARK,
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


def is_plain_card(path: Path) -> bool:
    """Whether a card is of [`write_plain_card`], and nobody has taken the mark from it."""
    return PLAIN_MARK in path.read_text(encoding="utf-8")


def pipeline_tag(task: str | None, input_format: str | None, adapter: dict[str, Any] | None) -> str | None:
    """
    The pipeline that the Hub offers a model for; `None` where `pipeline(task, model)` without this package would not
    open it, as an adapter, or not answer, as pairs that are read in both orders.
    """
    return None if adapter or input_format == "similarity" else task


def base_name(model: str) -> tuple[str, bool]:
    """A base model's name, of a folder the last part; and whether it is a Hub id."""
    if Path(model_path(model)).exists():
        return Path(model).resolve().name, False
    return model, is_repo_name(model) and "/" in model


def library(config: PreTrainedConfig, adapter: dict[str, Any] | None, *tags: str) -> dict[str, Any]:
    """Metadata by which the Hub knows what opens a model, and what it is of."""
    tags = [*model_tags(config), *tags]
    if adapter is None:
        return {"library_name": "transformers", "tags": tags}
    relation = {"base_model_relation": "adapter"} if adapter["on_hub"] else {}
    return {"library_name": "peft", "tags": [*tags, "lora", "transformers"], **relation}


def model_tags(config: PreTrainedConfig) -> list[str]:
    """Tags of an architecture."""
    return list(dict.fromkeys(["gpt1", config.model_type]))


def license_of(base: str, from_scratch: bool) -> str | None:
    """License of a fine-tuned model: its base model's, where that is known."""
    if base == "openai-community/openai-gpt":
        return "mit"
    card = Path(model_path(base)) / "README.md"
    known = (metadata_load(card) or {}).get("license") if card.is_file() else None
    return "mit" if from_scratch else known if isinstance(known, str) else None


def shown_settings(args: TrainingArguments, names: Sequence[str]) -> dict[str, Any]:
    """Settings that are set, by name."""
    values = {name: getattr(args, name, None) for name in names}
    return {name: getattr(value, "value", value) for name, value in values.items() if value is not None}
