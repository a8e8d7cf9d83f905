"""Weights as 8-bit integers, by torchao: about half of the size, and what that costs in quality.

Why torchao: it is PyTorch's own library, runs on any CPU without kernels of its own, and transformers loads and saves
its tensors as safetensors. (GPTQ and AWQ need calibration, and kernels; optimum-quanto is in maintenance mode.) The
integers are of the linear layers of the blocks, each row with a scale of its own; activations stay as they were.
Embeddings are left alone, and with them the LM head, which is the same matrix; so is a task's classifier, which is
hardly any of the weights.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tabulate import tabulate
from transformers import PreTrainedModel, TorchAoConfig

from ..configuration_gpt1_lstm import GPT1LSTMConfig
from ..errors import GPT1Error
from ..evaluation.evaluate import EvaluateArguments, measure
from ..evaluation.results import Result, write_results
from ..files import check_new, new_folder
from .export import open_reader, saved_class
from .loading import open_config, open_model


LEFT_ALONE = ["lm_head", "classifier"]
HOW = "int8 weights (torchao)"


def quantize(model: str, output_dir: str | Path, evaluation: EvaluateArguments | None = None) -> list[Result]:
    """
    Quantize the weights of a GPT-1, save it with its tokenizer (or processor), and measure what was lost.

    The folder is loaded as any other, by `AutoModelFor….from_pretrained`, with torchao installed.

    Args:
        model (`str`):
            Folder, Hub id, or embedded model, with any head.
        output_dir (`str` or `Path`):
            Folder to write, new or empty.
        evaluation ([`EvaluateArguments`], *optional*):
            What to score it on before and after: `task` or `text_file`. Its `model` and `output_dir` are not read.

    Returns:
        list of [`Result`]: of the quantized model, each with the number before in `details["before"]`. The first is
        the size of the weights in MB, then come the evaluation's.

    Raises:
        GPT1Error: if the model cannot be quantized, or what was saved computes something else than what was quantized.
        Nothing is left in `output_dir` then.
    """
    check_new(output_dir)
    if importlib.util.find_spec("torchao") is None:
        raise GPT1Error("quantization needs the library torchao: pip install 'gpt1_hf[quantize]'")
    config = open_config(model)
    if isinstance(config, GPT1LSTMConfig):
        raise GPT1Error(f"{model} is an LSTM, which has hardly any linear layers to quantize: give a GPT-1")
    if getattr(config, "quantization_config", None) is not None:
        raise GPT1Error(f"{model} is quantized already")
    head = saved_class(model, config)
    from torchao.quantization import Int8WeightOnlyConfig

    with new_folder(output_dir) as folder, TemporaryDirectory() as workplace:
        # By way of a plain folder: the model may be an adapter, or an OpenAIGPT.
        open_model(head, model, config, dtype="auto").save_pretrained(workplace)
        quantized = head.from_pretrained(
            workplace,
            dtype="auto",
            quantization_config=TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=LEFT_ALONE),
        )
        quantized.save_pretrained(folder)
        open_reader(model).save_pretrained(folder)
        _check(quantized, open_model(head, str(folder), open_config(str(folder)), dtype="auto", exact=True))
        del quantized

        sizes = [
            sum(file.stat().st_size for file in Path(where).glob("*.safetensors")) for where in (workplace, folder)
        ]
        mb_before, mb_after = (round(size / 1e6, 3) for size in sizes)
        details = {"quantization": HOW, "before": mb_before, "of": model}
        results = [Result("size", "weights", "megabytes", mb_after, 1, None, str(output_dir), None, details)]
        if evaluation is not None:
            args = replace(evaluation, model=model, output_dir=workplace)
            before, after = measure(args), measure(replace(args, model=str(folder)))
            for old, new in zip(before, after, strict=True):
                details = {**new.details, "quantization": HOW, "before": old.value, "of": model}
                results.append(replace(new, model=str(output_dir), details=details))
        write_results(folder, results)
    return results


@torch.no_grad()
def _check(quantized: PreTrainedModel, saved: PreTrainedModel):
    """Raise unless both give the same logits, bit for bit."""
    config = quantized.config
    length = min(32, config.max_position_embeddings)
    rows = (2,) if type(quantized).__name__.endswith(("ForCausalLM", "ForTokenClassification")) else (2, 2)
    ids = torch.randint(config.vocab_size, (*rows, length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if not quantized.eval()(**inputs).logits.equal(saved.eval()(**inputs).logits):
        raise GPT1Error("the quantized model computes something else once it is saved and loaded; nothing was saved")


def format_comparison(results: list[Result]) -> str:
    """A table of what quantization changed."""
    rows = [(r.task, r.split, r.metric, r.details["before"], r.value, r.value - r.details["before"]) for r in results]
    headers = ("task", "split", "metric", "before", "int8", "change")
    return tabulate(rows, headers=headers, floatfmt=("", "", "", ".4f", ".4f", "+.4f"))
