"""A one-minute demonstration: fine-tune the packaged model on a small sample, with and without pre-training."""

from collections import Counter
from pathlib import Path

from tabulate import tabulate
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from ..console import interruptible, note
from ..data.loading import reading_bars
from ..evaluation.metrics import score
from ..evaluation.results import RESULTS, Result, write_results
from ..tasks import load_task
from ..training.arguments import FinetuneArguments
from ..training.finetune import finetune_once
from ..training.manifest import remove_checkpoints
from ..training.run_folder import RunFolder, finetuning_facts
from .generation import generate


MODEL = "gpt1-tiny"
REMARKS = ("What a delightful evening we had at the play!", "The dinner was cold, and the company dreary.")


def demo(output_dir: str, seed: int = 42) -> list[Result]:
    """
    Fine-tune [`MODEL`] on the sentiment sample, from the pre-trained weights and from scratch, and show the results.

    Args:
        output_dir (`str`):
            Where the two fine-tuned models and `results.json` are written.
        seed (`int`, *optional*, defaults to 42):
            Seed of both runs.

    Returns:
        list of [`Result`]: the accuracy of both models.
    """
    task = load_task("sst2")
    with reading_bars():
        rows = {split: task.load(split, sample=True) for split in ("train", "validation")}
    note(f"Fine-tuning {MODEL} on {len(rows['train'])} remarks, to tell kind ones from unkind ones ...")
    results = []
    if (Path(output_dir) / RESULTS).is_file():  # start over after a finished demonstration; resume an interrupted one
        for name in ("pre-trained", "from-scratch"):
            (Path(output_dir) / name / RESULTS).unlink(missing_ok=True)
        (Path(output_dir) / RESULTS).unlink()
    for name, from_scratch in (("pre-trained", False), ("from-scratch", True)):
        args = FinetuneArguments(
            task=task.id,
            model=MODEL,
            sample=True,
            from_scratch=from_scratch,
            output_dir=str(Path(output_dir) / name),
            seed=seed,
            learning_rate=5e-4,
            num_train_epochs=6,
            warmup_steps=0.1,
            global_batch_size=16,
            logging_strategy="no",
            resume_from_checkpoint="true",
        )
        with interruptible("the demonstration", "the same command resumes it"):
            run = RunFolder.of_finetuning(args, finetuning_facts(args, task))
            results += run.finished_results() or finetune_once(run, task, rows)
        run.close()
        remove_checkpoints(args.output_dir)  # saved by an interruption
    write_results(output_dir, results)

    label, count = Counter(rows["validation"]["label"]).most_common(1)[0]
    majority = score("accuracy", [label] * len(rows["validation"]), rows["validation"]["label"])
    table = [
        (f"always {task.label_names[label]!r}", majority),
        ("from scratch", results[1].value),
        ("pre-trained", results[0].value),
    ]
    print(f"Accuracy on {len(rows['validation'])} other remarks:\n")
    print(tabulate(table, headers=("model", "accuracy %"), floatfmt=".1f"))

    folder = str(Path(output_dir) / "pre-trained")
    print(f"\nReloaded from {folder} with AutoModelForSequenceClassification:\n")
    classifier = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32"),
        tokenizer=AutoTokenizer.from_pretrained(folder),
    )
    for remark, answer in zip(REMARKS, classifier(list(REMARKS)), strict=True):
        print(f"  {answer['label']:<9} {answer['score']:.0%}  {remark}")
    print(f'\n{MODEL} itself continues "It was a dark":\n')
    print(f"  {generate('It was a dark', MODEL, max_new_tokens=40, seed=seed)[0]}")
    note(f"written to {output_dir}")
    return results
