"""Weights as 8-bit integers, with torchao: about half the size.

torchao is PyTorch's own library. It runs on any CPU without extra kernels, and transformers loads and saves its
tensors as safetensors. (GPTQ and AWQ need calibration and kernels; optimum-quanto is in maintenance mode.) The linear
layers of the blocks are quantized, with one scale per row; activations keep their precision. Embeddings, with the LM
head that shares their weights, and a task's small classifier stay as they are.
"""

import importlib.util
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel, TorchAoConfig

from ..configuration_gpt1_lstm import GPT1LSTMConfig
from ..errors import GPT1Error
from ..files import check_new, new_folder
from .export import open_preprocessor, saved_class
from .loading import open_config, open_model


NOT_QUANTIZED = ["lm_head", "classifier"]


def quantize(model: str, output_dir: str | Path) -> tuple[float, float]:
    """
    Quantize the weights of a GPT-1, and save it with its tokenizer (or processor).

    With torchao installed, `AutoModelFor….from_pretrained` loads the folder like any other.

    Args:
        model (`str`):
            Folder, Hub id, or embedded model, with any head.
        output_dir (`str` or `Path`):
            Folder to write, new or empty.

    Returns:
        `tuple[float, float]`: size of the weights in MB, before and after.

    Raises:
        GPT1Error: if the model cannot be quantized, or the saved model's logits differ from the quantized model's.
        Nothing is written to `output_dir` in that case.
    """
    check_new(output_dir)
    if importlib.util.find_spec("torchao") is None:
        raise GPT1Error("quantization needs the library torchao: pip install 'gpt1_hf[quantize]'")
    config = open_config(model)
    if isinstance(config, GPT1LSTMConfig):
        raise GPT1Error(f"{model} is an LSTM, which has hardly any linear layers to quantize: give a GPT-1")
    if getattr(config, "quantization_config", None) is not None:
        raise GPT1Error(f"{model} is already quantized: give the original model")
    head = saved_class(model, config)
    from torchao.quantization import Int8WeightOnlyConfig

    with new_folder(output_dir) as folder, TemporaryDirectory() as plain_copy:
        # The model may be an adapter or an OpenAIGPT, which cannot be quantized on loading.
        open_model(head, model, config, dtype="auto").save_pretrained(plain_copy)
        quantized = head.from_pretrained(
            plain_copy,
            dtype="auto",
            quantization_config=TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=NOT_QUANTIZED),
        )
        quantized.save_pretrained(folder)
        open_preprocessor(model).save_pretrained(folder)
        _check_same_logits(
            quantized, open_model(head, str(folder), open_config(str(folder)), dtype="auto", exact=True)
        )
        before, after = _megabytes(plain_copy), _megabytes(folder)
    return before, after


def _megabytes(folder: str | Path) -> float:
    """Size of the weights in a folder."""
    return round(sum(file.stat().st_size for file in Path(folder).glob("*.safetensors")) / 1e6, 3)


@torch.no_grad()
def _check_same_logits(quantized: PreTrainedModel, saved: PreTrainedModel):
    """Raise unless both models give the same logits, bit for bit."""
    config = quantized.config
    length = min(32, config.max_position_embeddings)
    rows = (2,) if type(quantized).__name__.endswith(("ForCausalLM", "ForTokenClassification")) else (2, 2)
    ids = torch.randint(config.vocab_size, (*rows, length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if not quantized.eval()(**inputs).logits.equal(saved.eval()(**inputs).logits):
        raise GPT1Error("the quantized model gives different logits after saving and loading; nothing was saved")
