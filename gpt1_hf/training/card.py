"""
The model card that lies beside a model's weights, from what really ran.

What users name (models, folders, corpora) is escaped: it can break neither the metadata nor the Markdown.
"""

import json
import platform
import re
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard import metadata_load
from huggingface_hub.utils import validate_repo_id
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from transformers import PreTrainedConfig, TrainingArguments

from ..checkpoints import open_config
from ..data.loading import local_copy
from ..evaluation.results import Result, write_text
from ..resources import card_templates, model_path
from ..tasks import Task
from ..upload import PLACEHOLDER
from .arguments import FinetuneArguments, PretrainArguments


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
VERSIONS = ("gpt1_hf", "torch", "transformers", "datasets", "tokenizers", "accelerate", "peft")

# Code of each head, as a reader would run it. `FOLDER` stands for the model's name, as a literal.
HEADER = """from transformers import {auto}, {reader}

name = FOLDER
model = {auto}.from_pretrained(name, trust_remote_code=True)
{tail}"""
GENERATE = """tokenizer = AutoTokenizer.from_pretrained(name)
prompt = tokenizer("It was a dark", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40, do_sample=True)[0]))"""
ENCODE = """tokenizer = AutoTokenizer.from_pretrained(name)
print(model(**tokenizer("It was a dark night.", return_tensors="pt"))[0].shape)"""
PROCESS = """processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
inputs = processor({example}, padding=True, return_tensors="pt")
logits = model(**inputs).logits[0]
print({answer})"""
EXAMPLES = {
    "classification": 'text="A film that is better than its title."',
    "entailment": 'premise="An old man sleeps in the sun.", hypothesis="Somebody is asleep."',
    "similarity": 'text_a="An old man sleeps in the sun.", text_b="A man is asleep outside."',
    "multiple_choice": 'document="Anna packed a tent and drove into the hills.", question="", choices={choices}',
}
CHOICES = ("She put up the tent.", "She sold her shoes.", "It was a Monday in the office.", "Nobody likes soup.")


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
    Write `README.md` beside each whole model of a fine-tuning run, one a seed, with its own numbers and the mean.

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
        # Not beside an adapter: it does not load the way that the card shows.
        if (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
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
    base = args.model if not Path(model_path(args.model)).exists() else Path(args.model).resolve().name
    on_hub = base == args.model and is_repo_name(base) and "/" in base

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
        library_name="transformers",
        pipeline_tag=pipeline,
        tags=[*model_tags(config), hub_word(task.id)],
        datasets=None if args.sample else [task.dataset],
        base_model=base if on_hub and not args.from_scratch else None,
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
        snippet=snippet(name, auto, task.input_format, len(task.label_names)),
        task=task,
        base=base,
        from_scratch=args.from_scratch,
        sample=args.sample,
        local_copy=local,
        details=details,
        labels=labels,
        settings={**shown_settings(args, FINETUNE_SETTINGS), "seed": seed},
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
    card_data = ModelCardData(
        **{"language": "en", **metadata},
        library_name="transformers",
        pipeline_tag=PIPELINES.get(end),
        tags=[*model_tags(config), *map(plain, tags)],
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
        snippet=snippet(name, f"AutoModel{end or ''}", input_format if needs_processor else None) if known else None,
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


def write_card(folder: str | Path, template: str, metadata: ModelCardData, **values: Any):
    """Render a template of `model_card/` into a folder's `README.md`."""
    jinja = Environment(
        loader=FileSystemLoader(card_templates()), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters |= {"text": text, "code": code, "sentence": lambda words: words[:1].upper() + words[1:]}
    body = jinja.get_template(f"{template}.md").render(metadata=metadata.to_yaml(), **values)
    body = body.encode("utf-8", "replace").decode()  # a description may have half a surrogate pair, too
    write_text(Path(folder) / "README.md", re.sub(r"\n{3,}", "\n\n", body).strip() + "\n")


def plain(name: str) -> str:
    """A name on one line, of characters that can be printed."""
    name = str(name).encode("utf-8", "replace").decode()
    return "".join(char for char in " ".join(name.split()) if char.isprintable()) or "model"


def text(value: Any) -> str:
    """A value as plain text of Markdown, also in a table."""
    return re.sub(r"([\\`*_\[\]<>|#~$&])", r"\\\1", plain(value)) if isinstance(value, str) else str(value)


def code(value: Any) -> str:
    """A value as Markdown code, also in a table."""
    value = plain(value).replace("|", "¦")
    fence = "`" * (max((len(run) for run in re.findall("`+", value)), default=0) + 1)
    return f"{fence} {value} {fence}" if "`" in value else f"{fence}{value}{fence}"


def hub_word(name: str) -> str:
    """What is left of a name among the characters that the Hub takes for one of a data set or a tag."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "text"


def is_repo_name(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def model_tags(config: PreTrainedConfig) -> list[str]:
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


def snippet(name: str, auto: str, input_format: str | None = None, n_choices: int = 2) -> str:
    """Code that loads a model and asks it something."""
    if input_format is None:
        reader, tail = "AutoTokenizer", GENERATE if auto == "AutoModelForCausalLM" else ENCODE
    else:
        choices = json.dumps(list(CHOICES[: max(2, min(n_choices, len(CHOICES)))]))
        answer = "logits.softmax(-1).tolist()"
        if auto == "AutoModelForSequenceClassification":
            answer = "dict(zip(model.config.id2label.values(), logits.tolist()))"
        example = EXAMPLES[input_format].replace("{choices}", choices)
        reader, tail = "AutoProcessor", PROCESS.format(example=example, answer=answer)
    lines = HEADER.format(auto=auto, reader=reader, tail=tail)
    return lines.replace("FOLDER", json.dumps(f"{PLACEHOLDER}{name}", ensure_ascii=False), 1)


def environment(device: str | None, processes: int) -> dict[str, str]:
    """Where a run ran: versions and hardware."""
    versions = {}
    for library in VERSIONS:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    hardware = {"hardware": device + (f", {processes} processes" if processes > 1 else "")} if device else {}
    return {"Python": platform.python_version(), **versions, **hardware}
