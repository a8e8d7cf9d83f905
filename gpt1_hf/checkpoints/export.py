"""A model as a program, for any batch size and length: an ONNX graph for onnxruntime, or a `torch.export` program.

transformers' exporters (`transformers.exporters`) trace, write and run it. This file defines the inputs of the models,
with their variable axes, and compares the exported program with its model. Neither program needs this package to run.

`torch.export.load` unpickles sample inputs and rare kinds of weights, so a `.pt2` file of unknown origin is as
dangerous as any pickle. Here it only reads the file just written, and the files written contain no pickles.
"""

import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim
from torch.fx import GraphModule
from torch.fx.experimental import _config as symbolic_shapes
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.exporters import DynamoExporter, ExportedModel, OnnxExporter
from transformers.utils import cached_file

from ..configuration_gpt1 import GPT1Config
from ..configuration_gpt1_lstm import GPT1LSTMConfig
from ..errors import GPT1Error, UsageError
from ..files import check_new, new_folder
from ..modeling_gpt1 import GPT1ForCausalLM
from ..modeling_gpt1_heads import CACHE
from ..registration import family_classes
from ..resources import model_path
from .conversion import LANGUAGE_MODELS
from .int8_program import round_weights
from .loading import open_config, open_model, open_processor, open_tokenizer


FORMATS = ("torch_export", "onnx")
WEIGHTS = ("fp32", "int8")
# Libraries that the format `onnx` needs.
ONNX_LIBRARIES = ("onnx", "onnxruntime", "onnxscript")
# Weights -> largest difference from the model's logits, relative to the largest logit. In fp32, both sides add up the
# same numbers in different orders: the logits of gpt1-tiny differ by about 1e-5. With int8 weights they differ
# by 4 % of the largest; that limit only finds mistakes, such as wrong scales. A score shows what rounding costs.
TOLERANCE = {"fp32": 1e-4, "int8": 0.2}

BATCH, SEQUENCE = Dim("batch", min=1), Dim("sequence", min=1)
CHOICES, PAST, TOTAL = Dim("choices", min=1), Dim("past", min=0), Dim("total", min=1)


@dataclass
class Export:
    """Result of [`export`]."""

    architecture: str  # class that was exported
    inputs: list[str]  # names of the program's inputs; the cache is one
    n_cases: int  # batches compared, of several sizes and lengths, with padding
    difference: float  # largest between the logits of program and model
    relative_difference: float  # relative to the model's largest logit
    megabytes: float  # size of the program with its weights
    fp32_difference: float  # as `difference`, before the weights were rounded
    fp32_megabytes: float  # as `megabytes`, before the weights were rounded


def export(
    model: str, output_dir: str | Path, format: str = "onnx", use_cache: bool = False, weights: str = "fp32"
) -> Export:
    """
    Export a model, with its tokenizer (or processor) and configuration.

    The program takes `input_ids` and `attention_mask` from the tokenizer, padded on either side, and returns `logits`.
    With a cache it also takes `position_ids` and the keys and values of earlier tokens (initially none), and returns
    those of all tokens; `attention_mask` then covers both, and padding is on the left.

    Args:
        model (`str`):
            Folder, Hub id, or embedded model, with any head.
        output_dir (`str` or `Path`):
            Folder to write, new or empty.
        format (`str`, *optional*, defaults to `"onnx"`):
            `"onnx"` or `"torch_export"`.
        use_cache (`bool`, *optional*, defaults to `False`):
            Whether a language model's key/value cache is an input and an output.
        weights (`str`, *optional*, defaults to `"fp32"`):
            `"fp32"`, or `"int8"` for an ONNX program of about half the size that is faster on a CPU: see
            `int8_program.py`. The fp32 program is checked first.

    Returns:
        [`Export`].

    Raises:
        UsageError: if the format has no int8 weights.
        GPT1Error: if the model cannot be exported, or the program gives different logits. Nothing is written to
        `output_dir` in that case.
    """
    check_new(output_dir)
    for value, known, what in ((format, FORMATS, "export format"), (weights, WEIGHTS, "type of weights")):
        if value not in known:
            raise GPT1Error(f"unknown {what} {value!r}: choose one of {', '.join(known)}")
    if weights == "int8" and format != "onnx":
        raise UsageError(f"the format {format} has no int8 weights: choose the format onnx, or fp32 weights")
    if format == "onnx" and (missing := [name for name in ONNX_LIBRARIES if importlib.util.find_spec(name) is None]):
        raise GPT1Error(f"the format onnx needs {' and '.join(missing)}: pip install 'gpt1_hf[onnx]'")
    loaded = _open(model, use_cache)
    preprocessor = open_preprocessor(model)
    cases = Cases(loaded, preprocessor, use_cache)
    with new_folder(output_dir) as folder, _quiet():
        exported = _trace(loaded, cases, format)
        exported.save_pretrained(folder)
        preprocessor.save_pretrained(folder)
        if weights == "int8":
            round_weights(exported)  # the saved program keeps its own
        found = [_check(folder, cases, model, "fp32")]
        if weights == "int8":
            exported.save_pretrained(folder)
            found.append(_check(folder, cases, model, weights))
    n_cases, difference, relative, megabytes = found[-1]
    return Export(
        type(loaded).__name__,
        list(cases.dynamic_shapes),
        n_cases,
        difference,
        relative,
        megabytes,
        fp32_difference=found[0][1],
        fp32_megabytes=found[0][3],
    )


def _check(folder: Path, cases: "Cases", model: str, weights: str) -> tuple[int, float, float, float]:
    """
    Compare a saved program with its model.

    Returns:
        `tuple[int, float, float, float]`: number of batches, largest difference between the logits, the same relative
        to the largest logit, and the size of the program's files in MB.
    """
    # transformers 5.24 requires trust in a file that it unpickles; this one was just written.
    program = ExportedModel.from_pretrained(folder, device="cpu", trust_remote_code=True)
    n_cases, difference, largest = cases.compare(program)
    if not difference <= TOLERANCE[weights] * largest:  # also true of NaN
        raise GPT1Error(
            f"the exported program's logits differ from those of {model} by up to {difference:.1e}, more than "
            f"{TOLERANCE[weights]:.0e} of the largest, {largest:.1f}; nothing was saved"
        )
    megabytes = round(sum(file.stat().st_size for file in folder.glob("model.*")) / 1e6, 3)
    return n_cases, difference, difference / largest if largest else 0.0, megabytes


def _open(model: str, use_cache: bool) -> PreTrainedModel:
    """Load a model; raise if it cannot be exported."""
    config = open_config(model)
    if isinstance(config, GPT1LSTMConfig):
        raise GPT1Error(f"{model} is an LSTM, which torch.export unrolls for a single length: give a GPT-1")
    if getattr(config, "quantization_config", None) is not None:
        raise GPT1Error(f"{model} is quantized: export the original model")
    head = saved_class(model, config)
    if use_cache and head is not GPT1ForCausalLM:
        raise GPT1Error(f"{model} holds a {head.__name__}, but only language models export a cache: drop --use_cache")
    return open_model(head, model, config).eval()


def saved_class(model: str, config: GPT1Config) -> type[PreTrainedModel]:
    """
    Class of a saved GPT-1. For a model without a head, and for an OpenAIGPT, it is the language model.

    Raises:
        GPT1Error: if the class does not belong to this package.
    """
    name = (config.architectures or LANGUAGE_MODELS)[0]
    classes = {own.__name__: own for auto, own in family_classes(GPT1Config).items() if auto.startswith("AutoModel")}
    heads = classes | dict.fromkeys(LANGUAGE_MODELS, GPT1ForCausalLM)
    if name not in heads:
        raise GPT1Error(f"{model} holds a {name}, but only these can be exported or quantized: {', '.join(heads)}")
    return heads[name]


def open_preprocessor(model: str) -> PreTrainedTokenizerBase | ProcessorMixin:
    """The processor saved with a model, or else its tokenizer."""
    # If there is none, AutoProcessor creates one.
    if cached_file(model_path(model), "processor_config.json", _raise_exceptions_for_missing_entries=False):
        return open_processor(model)
    return open_tokenizer(model)


def _trace(model: PreTrainedModel, cases: "Cases", format: str) -> ExportedModel:
    exporter = OnnxExporter() if format == "onnx" else DynamoExporter()
    config = exporter.config_class(dynamic=True, dynamic_shapes=cases.dynamic_shapes)
    # Tracing would treat sizes 0 and 1 as special cases, and require at least 2 new and 2 past tokens.
    with symbolic_shapes.patch(backed_size_oblivious=True):
        exported = exporter.export(model, {**cases.sample(), "use_cache": cases.use_cache}, config)
    if format == "torch_export":
        # Sample inputs would be pickled, and would make the loaded program reject rows of one token.
        exported.program.example_inputs = None
    _forget_source(exported, format)
    return exported


def _forget_source(exported: ExportedModel, format: str):
    """Remove the lines of code that each operation was traced from: they name the paths of this computer."""
    if format == "torch_export":
        for module in exported.program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, GraphModule) else ():
                node.meta.pop("stack_trace", None)
        return
    for component in exported.components.values():
        for node in component.program.graph.all_nodes():
            node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)


class Cases:
    """Inputs of a model, with their variable axes, and batches of random tokens to trace and compare it with."""

    def __init__(
        self, model: PreTrainedModel, preprocessor: PreTrainedTokenizerBase | ProcessorMixin, use_cache: bool
    ):
        self.model = model
        self.use_cache = use_cache
        self.generator = torch.Generator().manual_seed(0)
        axis, self.rows = [], ()  # the axis between batch and sequence, if any, and its size
        if type(model).__name__.endswith("ForMultipleChoice"):
            axis, self.rows = [CHOICES], (3,)
        elif getattr(preprocessor, "input_format", None) == "similarity":
            axis, self.rows = [Dim.STATIC], (2,)  # both orders
        axes = dict(enumerate((BATCH, *axis, SEQUENCE)))
        self.dynamic_shapes: dict[str, Any] = {"input_ids": axes, "attention_mask": axes}
        if use_cache:
            self.dynamic_shapes["attention_mask"] = {0: BATCH, 1: TOTAL}
            self.dynamic_shapes["position_ids"] = axes
            # In the order of a cache's tensors: keys and values of each layer.
            self.dynamic_shapes["cache"] = [{0: BATCH, 2: PAST}] * (2 * model.config.num_hidden_layers)

    def sample(self) -> dict[str, Any]:
        """Inputs to trace. All sizes differ, since tracing could identify equal ones."""
        inputs = self._tokens(4, 7)
        if self.use_cache:
            _, inputs["cache"] = self._run(self.model, inputs, (0, 2))
            inputs = token_slice(inputs, 2, 7)
        return inputs

    @torch.no_grad()
    def compare(self, program: ExportedModel) -> tuple[int, float, float]:
        """
        Number of comparisons, largest difference between the logits of program and model, and the largest logit. Every
        program gets the same batches.
        """
        self.generator.manual_seed(0)
        context = self.model.config.max_position_embeddings
        differences, largest = [], 0.0
        for batch, length in ((1, 1), (1, 2), (3, 1), (2, 7), (5, context // 2), (2, context)):
            inputs = self._tokens(batch, length)
            expected = self.model(**inputs, use_cache=False).logits
            mask = inputs["attention_mask"].bool()
            counted = mask if expected.shape[:-1] == mask.shape else ...  # logits at padding are meaningless
            # With a cache, the text is also processed in two and in three parts.
            for cuts in (
                {(0, length), (0, 1, length), (0, length // 2, length - 1, length)} if self.use_cache else [()]
            ):
                if list(cuts) != sorted(set(cuts)):
                    continue
                found = self._run(program, inputs, cuts)[0] if cuts else program(**inputs).logits
                differences.append((found - expected)[counted].abs().max())
            largest = max(largest, expected.abs().max().item())
        return len(differences), torch.stack(differences).max().item(), largest  # NaN stays NaN

    def _tokens(self, batch: int, length: int) -> dict[str, Any]:
        """
        Random tokens. All rows but the last are padded to different lengths: on the left with a cache, else on
        alternating sides.
        """
        shape = (batch, *self.rows, length)
        input_ids = torch.randint(self.model.config.vocab_size, shape, generator=self.generator)
        n_rows = input_ids[..., 0].numel()
        lengths = (length - torch.arange(n_rows).flip(0)).clamp(min=1).view(*shape[:-1], 1)
        mask = (torch.arange(length) < lengths).long()
        if not self.use_cache:
            on_left = torch.arange(n_rows).view(*shape[:-1], 1) % 2 == 1
            return {"input_ids": input_ids, "attention_mask": torch.where(on_left, mask.flip(-1), mask)}
        mask = mask.flip(-1)
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        }

    @torch.no_grad()
    def _run(self, model: PreTrainedModel | ExportedModel, inputs: dict[str, Any], cuts: tuple[int, ...]):
        """Process a text part by part; return all logits and the final cache."""
        cache, logits = empty_cache(self.model.config, len(inputs["input_ids"])), []
        for start, end in pairwise(cuts):
            output = model(**token_slice(inputs, start, end), cache=cache)
            cache = getattr(output, CACHE)
            logits.append(output.logits)
        return torch.cat(logits, dim=1), cache


def empty_cache(config: GPT1Config, batch: int) -> DynamicCache:
    """The cache that a program takes with the first tokens of a batch: keys and values of no tokens."""
    head_dim = config.hidden_size // config.num_attention_heads
    cache = DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        keys, values = torch.zeros(2, batch, config.num_attention_heads, 0, head_dim)
        cache.update(keys, values, layer)
    return cache


def token_slice(inputs: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """Inputs for the tokens `start` to `end - 1`; the mask covers all tokens before `end`."""
    cuts = {"attention_mask": slice(0, end), "cache": None}
    return {
        name: value if (cut := cuts.get(name, slice(start, end))) is None else value[:, cut].contiguous()
        for name, value in inputs.items()
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress that torch.onnx prints, and the exporters' warnings."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
