"""OpenAI's release and transformers' OpenAIGPT checkpoints -> this package's layout, and back.

OpenAI published GPT-1 as ten arrays and a list of shapes to split them by (`openai/finetune-transformer-lm`,
`train.py`). transformers' OpenAIGPT has one projection for query, key and value, and transposes all projections. A
converted model is loaded again and compared with its source on random tokens before it is kept.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import (
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    OpenAIGPTTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    TokenizersBackend,
)
from transformers.utils import cached_file

from ..configuration_gpt1 import GPT1Config
from ..errors import GPT1Error
from ..files import check_new, new_folder
from ..hub_errors import load_failure
from ..modeling_gpt1 import GPT1ForCausalLM
from ..resources import model_path
from ..tokenization_gpt1 import VOCABULARY_FILES, GPT1Tokenizer
from .loading import OPEN_ERRORS, open_config, open_model, open_tokenizer


# Largest difference between two logits. In fp64, rounding causes about 1e-13. In fp32 it would cause a few 1e-5 for
# gpt1-tiny, which could hide a small mistake.
TOLERANCE = 1e-5

LAYOUTS = ("gpt1", "openai-gpt")
RELEASE = "release"

N_ARRAYS = 10  # params_0.npy to params_9.npy
SHAPES = "params_shapes.json"
HEAD_SIZE = 64  # not in the release; the paper's model has 12 heads and a width of 768 (§4.1)
# Order of a block's arrays in the release: TensorFlow's order of creation. Positions and tokens precede the blocks.
BLOCK = (
    "attn.c_attn.weight",
    "attn.c_attn.bias",
    "attn.c_proj.weight",
    "attn.c_proj.bias",
    "ln_1.weight",
    "ln_1.bias",
    "mlp.c_fc.weight",
    "mlp.c_fc.bias",
    "mlp.c_proj.weight",
    "mlp.c_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
)

# Names in OpenAIGPTConfig of the values that both configurations have.
SHARED_VALUES = (
    "vocab_size",
    "n_positions",
    "n_embd",
    "n_layer",
    "n_head",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
    "layer_norm_epsilon",
    "initializer_range",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
)
# Our activation -> OpenAIGPTConfig's `afn` (models/openai/modeling_openai.py, ACT_FNS).
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu", "gelu_new": "gelu", "relu": "relu", "silu": "silu", "swish": "swish"}
# Our projections -> OpenAIGPT's; `c_attn` also holds keys and values.
PROJECTIONS = {
    "attn.q_proj": "attn.c_attn",
    "attn.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}
TOKENIZER_FILES = ("tokenizer.json", VOCABULARY_FILES[1][0])  # one of them is enough
LANGUAGE_MODELS = ("GPT1ForCausalLM", "GPT1Model", "OpenAIGPTLMHeadModel", "OpenAIGPTModel")


@dataclass
class Conversion:
    """Result of [`convert`]."""

    n_parameters: int
    has_tokenizer: bool  # whether the source had one
    difference: float  # largest between the logits of source and converted model, in fp64, over one full context


def convert(source: str | Path, output_dir: str | Path, to: str = "gpt1") -> Conversion:
    """
    Convert a language model, its configuration and its tokenizer. The weights keep their dtype.

    Args:
        source (`str` or `Path`):
            Folder of OpenAI's release (`params_0.npy` to `params_9.npy`, `params_shapes.json` and, optionally, the
            vocabulary), or folder or Hub id of an OpenAIGPT or GPT-1 language model.
        output_dir (`str` or `Path`):
            Folder to write, new or empty.
        to (`str`, *optional*, defaults to `"gpt1"`):
            Layout to write: `"gpt1"` (this package's) or `"openai-gpt"` (transformers' OpenAIGPT).

    Returns:
        [`Conversion`].

    Raises:
        GPT1Error: if the source is not such a model, is damaged or incomplete, or cannot be expressed in the other
        layout, or if the converted model gives different logits. Nothing is written to `output_dir` in that case.
    """
    check_new(output_dir)
    source = model_path(str(source))
    layout = _layout(source)
    if to not in LAYOUTS or to == layout:
        others = " or ".join(other for other in LAYOUTS if other != layout)
        raise GPT1Error(f"{source} has the layout {layout!r} and can be converted to {others}, not to {to!r}")

    model, tokenizer = _read_release(Path(source)) if layout == RELEASE else _read_checkpoint(source, layout)
    n_parameters = model.num_parameters()
    if tokenizer is not None and len(tokenizer) > model.config.vocab_size:
        raise GPT1Error(
            f"the tokenizer in {source} has {len(tokenizer)} tokens, but the model only {model.config.vocab_size}: "
            "use the tokenizer that belongs to the model"
        )
    openai_config = _openai_config(model.config, source) if to == "openai-gpt" else None

    with new_folder(output_dir) as folder:
        if openai_config is None:
            model.save_pretrained(folder)
        else:
            _to_openai(model, openai_config).save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
            if to == "openai-gpt":
                # Older versions of OpenAIGPTTokenizer read vocab.json and merges.txt only.
                tokenizer.backend_tokenizer.model.save(str(folder))
        del model  # never more than two models in memory

        expected = _logits(_reference(source, layout))
        difference = (_logits(_open(str(folder), to)) - expected).abs().max().item()
        if not difference <= TOLERANCE:  # also true of NaN
            raise GPT1Error(
                f"the converted model's logits differ from those of {source} by up to {difference:.1e}, more than "
                f"{TOLERANCE:.0e}; nothing was saved"
            )
    return Conversion(n_parameters, tokenizer is not None, difference)


def _layout(source: str) -> str:
    """The layout of a source: one of `LAYOUTS`, or the release."""
    if not (Path(source) / "config.json").is_file() and any(Path(source).glob("params_*")):
        return RELEASE
    try:
        config, _ = PreTrainedConfig.get_config_dict(source)
        if not config:  # the library's answer for a folder without one
            raise FileNotFoundError("there is no config.json")
    except (*OPEN_ERRORS, ValueError) as error:
        known = None if Path(source).exists() else load_failure(error, source, "model")
        reason = ": ".join(known) if known else " ".join(str(error).split("\n")[0].split())
        raise GPT1Error(
            f"{source} is neither a folder of OpenAI's release ({SHAPES}, params_0.npy to params_{N_ARRAYS - 1}.npy) "
            f"nor a readable folder or accessible Hub id of a GPT-1 or OpenAIGPT model ({reason})"
        ) from error
    layout = config.get("model_type")
    if layout not in LAYOUTS:
        raise GPT1Error(f"{source} holds a `{layout}` model; only `gpt1` and `openai-gpt` models can be converted")
    for architecture in config.get("architectures") or ():
        if architecture not in LANGUAGE_MODELS:
            raise GPT1Error(
                f"{source} holds a {architecture}; only language models can be converted, not task heads "
                f"({', '.join(LANGUAGE_MODELS)})"
            )
    return layout


# Reading: any source becomes this package's model and tokenizer


def _read_checkpoint(source: str, layout: str) -> tuple[GPT1ForCausalLM, TokenizersBackend | None]:
    """Load a checkpoint in either layout; `modeling_gpt1.py` maps OpenAIGPT's weights."""
    config = open_config(source) if layout == "gpt1" else _gpt1_config(source)
    tokenizer = None
    # Without files, AutoTokenizer returns a tokenizer without a vocabulary.
    if any(cached_file(source, name, _raise_exceptions_for_missing_entries=False) for name in TOKENIZER_FILES):
        tokenizer = open_tokenizer(source)
    if isinstance(tokenizer, OpenAIGPTTokenizer):
        tokenizer = _gpt1_tokenizer(tokenizer, source, config.max_position_embeddings)
        if config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id
    return open_model(GPT1ForCausalLM, source, config, dtype="auto", exact=True), tokenizer


def _gpt1_config(source: str) -> GPT1Config:
    config = OpenAIGPTConfig.from_pretrained(source)
    values = {name: getattr(config, name) for name in SHARED_VALUES}
    return GPT1Config(**values, afn=config.afn, classifier_dropout=config.summary_first_dropout)


def _gpt1_tokenizer(tokenizer: OpenAIGPTTokenizer, source: str, model_max_length: int) -> GPT1Tokenizer:
    """The same vocabulary with the original word splitting, which OpenAIGPTTokenizer only approximates."""
    with TemporaryDirectory() as folder:
        tokenizer.backend_tokenizer.model.save(folder)
        converted = GPT1Tokenizer.from_original(folder, model_max_length=model_max_length)
    converted.add_tokens([token for _, token in sorted(tokenizer.added_tokens_decoder.items())])
    converted.add_special_tokens(tokenizer.special_tokens_map)
    if converted.get_vocab() != tokenizer.get_vocab():
        raise GPT1Error(
            f"the ids of added tokens in the tokenizer of {source} cannot be preserved: remove added tokens"
        )
    return converted


def _read_release(folder: Path) -> tuple[GPT1ForCausalLM, GPT1Tokenizer | None]:
    """Load OpenAI's release."""
    config, tokenizer = _release_config(folder), None
    if all((folder / name).is_file() for name in VOCABULARY_FILES[0]):
        tokenizer = GPT1Tokenizer.from_original(folder, model_max_length=config.max_position_embeddings)
        config.pad_token_id = tokenizer.pad_token_id
    names = ["positions_embed.weight", "tokens_embed.weight"]
    names += [f"h.{layer}.{name}" for layer in range(config.num_hidden_layers) for name in BLOCK]
    weights = {}
    for name, array in zip(names, _release_arrays(folder), strict=True):
        # Projections are one-dimensional convolutions of width 1: (1, in, out).
        weights[name] = torch.from_numpy(array.squeeze(0) if array.ndim == 3 else array)
    return GPT1ForCausalLM.from_pretrained(None, config=config, state_dict=weights), tokenizer


def _release_shapes(folder: Path) -> list[list[int]]:
    file = folder / SHAPES
    try:
        shapes = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GPT1Error(f"{folder} lacks {SHAPES}: download it from OpenAI's release, with the arrays") from error
    except ValueError as error:
        raise GPT1Error(f"{file} is not valid JSON: download it again") from error
    try:
        (n_positions, width), (vocab_size, _), *blocks = shapes
        n_layer = len(blocks) // len(BLOCK)
        projections = [[1, width, 3 * width], [1, width, width], [1, width, 4 * width], [1, 4 * width, width]]
        attention, output, up, down = ([shape, shape[-1:]] for shape in projections)
        norm = [[width], [width]]
        block = [*attention, *output, *norm, *up, *down, *norm]
        fits = shapes == [[n_positions, width], [vocab_size, width], *n_layer * block] and width % HEAD_SIZE == 0
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise GPT1Error(
            f"{file} does not list the shapes of a GPT-1: positions, tokens, and {len(BLOCK)} arrays per layer, all "
            f"of one width that is a multiple of {HEAD_SIZE}"
        )
    return shapes


def _release_config(folder: Path) -> GPT1Config:
    (n_positions, width), (vocab_size, _), *blocks = _release_shapes(folder)
    return GPT1Config(
        vocab_size=vocab_size,
        max_position_embeddings=n_positions,
        hidden_size=width,
        num_attention_heads=width // HEAD_SIZE,
        num_hidden_layers=len(blocks) // len(BLOCK),
    )


def _release_arrays(folder: Path) -> Iterator[np.ndarray]:
    """The release's parameters, one in memory at a time. The files hold them end to end."""
    shapes = _release_shapes(folder)
    parts, total = [], 0
    for index in range(N_ARRAYS):
        file = folder / f"params_{index}.npy"
        try:
            part = np.load(file, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise GPT1Error(f"{folder} lacks {file.name}: download it from OpenAI's release") from error
        except (ValueError, EOFError) as error:
            reason = str(error).split("\n")[0]
            raise GPT1Error(f"{file} is damaged or not an array: download it again ({reason})") from error
        if not isinstance(part, np.ndarray) or part.dtype.kind != "f":
            raise GPT1Error(f"{file} does not hold an array of floating-point numbers: download it again")
        parts.append((total, part.reshape(-1)))
        total += part.size
    if total != (expected := sum(math.prod(shape) for shape in shapes)):
        raise GPT1Error(
            f"the arrays in {folder} hold {total:,} numbers, but {SHAPES} describes {expected:,}: one is damaged, or "
            "they belong to another model, so download them again"
        )
    begin = 0
    for shape in shapes:
        end = begin + math.prod(shape)
        pieces = [part[max(begin - first, 0) : max(end - first, 0)] for first, part in parts]
        yield np.concatenate(pieces).astype(np.float32, copy=False).reshape(shape)
        begin = end


# Writing OpenAIGPT's layout


def _openai_config(config: GPT1Config, source: str) -> OpenAIGPTConfig:
    """
    The configuration of the equivalent OpenAIGPT.

    Raises:
        GPT1Error: if OpenAIGPT cannot express the model.
    """
    obstacle = None
    if config.position_embedding_type != "learned":
        obstacle = f"has {config.position_embedding_type!r} positions, but OpenAIGPT's are learned"
    elif config.intermediate_size != 4 * config.hidden_size:
        obstacle = (
            f"has an intermediate_size of {config.intermediate_size}, but OpenAIGPT's is four times the hidden_size, "
            f"{4 * config.hidden_size}"
        )
    elif config.hidden_act not in ACTIVATIONS:
        obstacle = f"uses the activation {config.hidden_act!r}, but OpenAIGPT has only {', '.join(ACTIVATIONS)}"
    if obstacle:
        raise GPT1Error(f"{source} cannot be converted to OpenAIGPT: it {obstacle}")
    values = {name: getattr(config, name) for name in SHARED_VALUES}
    return OpenAIGPTConfig(
        **values, afn=ACTIVATIONS[config.hidden_act], summary_first_dropout=config.classifier_dropout
    )


def _to_openai(source: GPT1ForCausalLM, config: OpenAIGPTConfig) -> OpenAIGPTLMHeadModel:
    """The weights in an OpenAIGPT: query, key and value as one projection, projections stored as (in, out)."""
    weights, state = {}, source.state_dict()
    for key, tensor in state.items():
        if "attn.k_proj" in key or "attn.v_proj" in key:
            continue
        name = key
        for gpt1_name, openai_name in PROJECTIONS.items():
            name = name.replace(gpt1_name, openai_name)
        if "attn.q_proj" in key:
            tensor = torch.cat([state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        weights[name] = tensor.T if name != key and tensor.dim() == 2 else tensor
    model = OpenAIGPTLMHeadModel(config).to(source.dtype)
    model.load_state_dict(weights)
    return model


# Comparing


def _open(source: str, layout: str) -> PreTrainedModel:
    """Load a checkpoint with the class of its layout, in fp64."""
    if layout == "gpt1":
        return open_model(GPT1ForCausalLM, source, open_config(source), dtype="float64")
    return open_model(OpenAIGPTLMHeadModel, source, OpenAIGPTConfig.from_pretrained(source), dtype="float64")


def _reference(source: str, layout: str) -> PreTrainedModel:
    """
    The source as a model in fp64, loaded independently of the conversion: a checkpoint with the class of its layout;
    the release as an OpenAIGPT, whose parameters have the release's order except for the two embeddings.
    """
    if layout != RELEASE:
        return _open(source, layout)
    model = OpenAIGPTLMHeadModel(_openai_config(_release_config(Path(source)), source)).double()
    tokens, positions, *blocks = model.transformer.parameters()
    with torch.no_grad():
        for parameter, array in zip([positions, tokens, *blocks], _release_arrays(Path(source)), strict=True):
            parameter.copy_(torch.from_numpy(array).view_as(parameter))
    return model


@torch.no_grad()
def _logits(model: PreTrainedModel) -> torch.Tensor:
    """Logits of one full context of random tokens, the same for every model: `(1, context, vocab)`."""
    shape = (1, model.config.max_position_embeddings)
    ids = torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    return model.eval()(ids).logits
