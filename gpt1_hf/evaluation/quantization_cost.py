"""Cost of quantization, and of an export: size of the weights and scores, before and after."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tabulate import tabulate

from ..checkpoints.export import Export, export
from ..checkpoints.quantization import quantize
from ..files import new_folder
from .evaluate import EvaluateArguments, compute_results
from .program import ScoredProgram
from .results import Result, write_results


METHOD = "int8 weights (torchao)"
PROGRAM_METHOD = "int8 weights (onnxruntime)"


def quantize_and_score(
    model: str, output_dir: str | Path, evaluation: EvaluateArguments | None = None
) -> list[Result]:
    """
    Quantize a GPT-1 with [`quantize`], score it before and after, and write `results.json` beside the model.

    Args:
        model (`str`):
            Folder, Hub id, or embedded model, with any head.
        output_dir (`str` or `Path`):
            Folder to write, new or empty.
        evaluation ([`EvaluateArguments`], *optional*):
            Settings of the scoring, with `task` or `text_file`. Its `model` and `output_dir` are ignored.

    Returns:
        list of [`Result`]: the size of the weights in MB, and then the scores. `value` is after quantization,
        `details["before"]` is before it.

    Raises:
        GPT1Error: if the model cannot be quantized or scored. Nothing is written to `output_dir` in that case.
    """
    details = {"quantization": METHOD, "of": model}
    with new_folder(output_dir) as folder, TemporaryDirectory() as scores:
        before, after = quantize(model, folder)
        results = [_size(before, after, output_dir, details)]
        if evaluation is not None:
            args = replace(evaluation, model=model, output_dir=scores)
            old, new = compute_results(args), compute_results(replace(args, model=str(folder)))
            results += _changes(old, new, output_dir, details)
        write_results(folder, results)
    return results


def export_and_score(
    model: str,
    output_dir: str | Path,
    format: str = "onnx",
    use_cache: bool = False,
    weights: str = "fp32",
    evaluation: EvaluateArguments | None = None,
) -> tuple[Export, list[Result]]:
    """
    Export a GPT-1 with [`export`], and score the model and the program. With int8 weights or a score, `results.json`
    is written beside the program.

    Args:
        model (`str`), output_dir (`str` or `Path`), format (`str`), use_cache (`bool`), weights (`str`):
            See [`export`].
        evaluation ([`EvaluateArguments`], *optional*):
            Settings of the scoring, with `task` or `text_file`. Its `model` and `output_dir` are ignored.

    Returns:
        `tuple` of [`Export`] and a list of [`Result`]: with int8 weights the size of the program in MB, and then the
        scores. `value` is that of the program. `details["before"]` is that of the fp32 program for the size, and that
        of the model for scores.

    Raises:
        GPT1Error: if the model cannot be exported or scored. Nothing is written to `output_dir` in that case.
    """
    details = {"program": format, "of": model} | ({"quantization": PROGRAM_METHOD} if weights == "int8" else {})
    results = []
    with new_folder(output_dir) as folder, TemporaryDirectory() as scores:
        exported = export(model, folder, format, use_cache, weights)
        if weights == "int8":
            results.append(_size(exported.fp32_megabytes, exported.megabytes, output_dir, details))
        if evaluation is not None:
            args = replace(evaluation, model=model, output_dir=scores)
            old, new = compute_results(args), compute_results(args, ScoredProgram(folder, weights))
            results += _changes(old, new, output_dir, details)
        if results:
            write_results(folder, results)
    return exported, results


def _size(before: float, after: float, output_dir: str | Path, details: dict[str, Any]) -> Result:
    """Sizes in MB."""
    return Result("size", "weights", "megabytes", after, 1, None, str(output_dir), None, {**details, "before": before})


def _changes(old: list[Result], new: list[Result], output_dir: str | Path, details: dict[str, Any]) -> list[Result]:
    """Scores after a change of the model, with those before it in `details`."""
    return [
        replace(after, model=str(output_dir), details={**after.details, **details, "before": before.value})
        for before, after in zip(old, new, strict=True)
    ]


def format_comparison(results: list[Result], after: str = "int8") -> str:
    """Table of the changes, with the name of what changed as the header of the new values."""
    rows = [
        (r.task, r.split, r.rows, r.metric, r.details["before"], r.value, r.value - r.details["before"])
        for r in results
    ]
    headers = ("task", "split", "rows", "metric", "before", after, "change")
    return tabulate(rows, headers=headers, floatfmt=("", "", "", "", ".4f", ".4f", "+.4f"))
