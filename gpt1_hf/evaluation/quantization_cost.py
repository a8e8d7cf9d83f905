"""Cost of quantization: size of the weights and scores, before and after."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tabulate import tabulate

from ..checkpoints.quantization import quantize
from ..files import new_folder
from .evaluate import EvaluateArguments, compute_results
from .results import Result, write_results


METHOD = "int8 weights (torchao)"


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
    with new_folder(output_dir) as folder, TemporaryDirectory() as scores:
        before, after = quantize(model, folder)
        details = {"quantization": METHOD, "before": before, "of": model}
        results = [Result("size", "weights", "megabytes", after, 1, None, str(output_dir), None, details)]
        if evaluation is not None:
            args = replace(evaluation, model=model, output_dir=scores)
            for old, new in zip(compute_results(args), compute_results(replace(args, model=str(folder))), strict=True):
                details = {**new.details, "quantization": METHOD, "before": old.value, "of": model}
                results.append(replace(new, model=str(output_dir), details=details))
        write_results(folder, results)
    return results


def format_comparison(results: list[Result]) -> str:
    """Table of the changes by quantization."""
    rows = [
        (r.task, r.split, r.rows, r.metric, r.details["before"], r.value, r.value - r.details["before"])
        for r in results
    ]
    headers = ("task", "split", "rows", "metric", "before", "int8", "change")
    return tabulate(rows, headers=headers, floatfmt=("", "", "", "", ".4f", ".4f", "+.4f"))
