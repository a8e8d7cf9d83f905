"""OpenAI's release and transformers' OpenAIGPT checkpoints -> this package's layout, and back.

OpenAI published GPT-1 as ten arrays of numbers that are cut up by a list of shapes (`openai/finetune-transformer-lm`,
`train.py`); transformers' OpenAIGPT keeps query, key and value in one projection, and its projections transposed. What
a conversion has written is loaded again and compared with its source on random tokens before it takes its place.
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


# Largest difference of two logits. Models are compared in fp64, where rounding explains 1e-13 or so; in fp32 it
# explains a few 1e-5 already for gpt1-tiny, which could hide a small mistake.
TOLERANCE = 1e-5

LAYOUTS = ("gpt1", "openai-gpt")
RELEASE = "release"

N_ARRAYS = 10  # params_0.npy to params_9.npy
SHAPES = "params_shapes.json"
HEAD_SIZE = 64  # the release does not say how many heads there are; the paper's 768 wide model has 12 (§4.1)
# The release's order, which is that in which TensorFlow met the variables; first come the positions, then the tokens.
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

# What both configurations have, by OpenAIGPTConfig's names.
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
TOKENIZER_FILES = ("tokenizer.json", VOCABULARY_FILES[1][0])  # either will do
LANGUAGE_MODELS = ("GPT1ForCausalLM", "GPT1Model", "OpenAIGPTLMHeadModel", "OpenAIGPTModel")


@dataclass
class Conversion:
    """
    What a conversion did.

    Args:
        n_parameters (`int`):
            Number of parameters of the model.
        has_tokenizer (`bool`):
            Whether the source had a tokenizer to go with it.
        difference (`float`):
            Largest absolute difference between the logits of the source and of the converted model, in fp64, on one
            row of random tokens as long as the context.
    """

    n_parameters: int
    has_tokenizer: bool
    difference: float


def convert(source: str | Path, output_dir: str | Path, to: str = "gpt1") -> Conversion:
    """
    Convert a language model, its configuration and its tokenizer. The weights keep their type.

    Args:
        source (`str` or `Path`):
            Folder of OpenAI's release (`params_0.npy` to `params_9.npy` and `params_shapes.json`; the vocabulary is
            read if it is there), or folder or Hub id of an OpenAIGPT or GPT-1 language model.
        output_dir (`str` or `Path`):
            Folder to write, new or empty.
        to (`str`, *optional*, defaults to `"gpt1"`):
            Layout to write: `"gpt1"`, this package's, or `"openai-gpt"`, transformers' OpenAIGPT.

    Returns:
        [`Conversion`].

    Raises:
        GPT1Error: if the source is none of these, is damaged or lacks weights, the other layout cannot express it, or
        the converted model computes something else. Nothing is left in `output_dir` then.
    """
    check_new(output_dir)
    source = model_path(str(source))
    kind = _kind(source)
    if to not in LAYOUTS or to == kind:
        others = " or ".join(layout for layout in LAYOUTS if layout != kind)
        raise GPT1Error(f"{source} is in the layout {kind!r} and can be converted to {others}, not to {to!r}")

    model, tokenizer = _read_release(Path(source)) if kind == RELEASE else _read_checkpoint(source, kind)
    n_parameters = model.num_parameters()
    if tokenizer is not None and len(tokenizer) > model.config.vocab_size:
        raise GPT1Error(
            f"the tokenizer in {source} has {len(tokenizer)} entries, but the model embeds {model.config.vocab_size}: "
            "they do not belong together"
        )
    their_config = _their_config(model.config, source) if to == "openai-gpt" else None

    with new_folder(output_dir) as folder:
        if their_config is None:
            model.save_pretrained(folder)
        else:
            _theirs(model, their_config).save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
            if to == "openai-gpt":
                # Older versions of OpenAIGPTTokenizer know these two files only.
                tokenizer.backend_tokenizer.model.save(str(folder))
        del model  # two models in memory are enough

        expected = _logits(_reference(source, kind))
        difference = (_logits(_open(str(folder), to)) - expected).abs().max().item()
        if not difference <= TOLERANCE:  # nor is NaN
            raise GPT1Error(
                f"the converted model's logits differ from those of {source} by up to {difference:.1e}, more than "
                f"{TOLERANCE:.0e}; nothing was saved"
            )
    return Conversion(n_parameters, tokenizer is not None, difference)


def _kind(source: str) -> str:
    """The layout of a source: one of [`LAYOUTS`], or the release."""
    if not (Path(source) / "config.json").is_file() and any(Path(source).glob("params_*")):
        return RELEASE
    try:
        config, _ = PreTrainedConfig.get_config_dict(source)
        if not config:  # what the library makes of a folder without one
            raise FileNotFoundError("there is no config.json")
    except (*OPEN_ERRORS, ValueError) as error:
        known = None if Path(source).exists() else load_failure(error, source, "model")
        reason = ": ".join(known) if known else " ".join(str(error).split("\n")[0].split())
        raise GPT1Error(
            f"{source} is neither a folder of OpenAI's release ({SHAPES}, params_0.npy to params_{N_ARRAYS - 1}.npy), "
            f"nor a folder or Hub id of a GPT-1 or OpenAIGPT model that can be reached ({reason})"
        ) from error
    kind = config.get("model_type")
    if kind not in LAYOUTS:
        raise GPT1Error(f"{source} holds a `{kind}` model; only `gpt1` and `openai-gpt` ones can be converted")
    for architecture in config.get("architectures") or ():
        if architecture not in LANGUAGE_MODELS:
            raise GPT1Error(
                f"{source} holds a {architecture}; only language models can be converted, not task heads "
                f"({', '.join(LANGUAGE_MODELS)})"
            )
    return kind


# Reading: every source becomes our model and its tokenizer


def _read_checkpoint(source: str, kind: str) -> tuple[GPT1ForCausalLM, TokenizersBackend | None]:
    """Load a checkpoint in either layout; the weight mapping in `modeling_gpt1.py` knows OpenAIGPT's."""
    config = open_config(source) if kind == "gpt1" else _our_config(source)
    tokenizer = None
    # Where there are no files, AutoTokenizer makes up a tokenizer without a vocabulary.
    if any(cached_file(source, name, _raise_exceptions_for_missing_entries=False) for name in TOKENIZER_FILES):
        tokenizer = open_tokenizer(source)
    if isinstance(tokenizer, OpenAIGPTTokenizer):
        tokenizer = _our_tokenizer(tokenizer, source, config.max_position_embeddings)
        if config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id
    return open_model(GPT1ForCausalLM, source, config, dtype="auto", exact=True), tokenizer


def _our_config(source: str) -> GPT1Config:
    theirs = OpenAIGPTConfig.from_pretrained(source)
    values = {name: getattr(theirs, name) for name in SHARED_VALUES}
    return GPT1Config(**values, afn=theirs.afn, classifier_dropout=theirs.summary_first_dropout)


def _our_tokenizer(theirs: OpenAIGPTTokenizer, source: str, model_max_length: int) -> GPT1Tokenizer:
    """The same vocabulary with the word splitting of the original, which OpenAIGPTTokenizer only approaches."""
    with TemporaryDirectory() as folder:
        theirs.backend_tokenizer.model.save(folder)
        ours = GPT1Tokenizer.from_original(folder, model_max_length=model_max_length)
    ours.add_tokens([token for _, token in sorted(theirs.added_tokens_decoder.items())])
    ours.add_special_tokens(theirs.special_tokens_map)
    if ours.get_vocab() != theirs.get_vocab():
        raise GPT1Error(f"the tokenizer in {source} numbers its added tokens in a way that cannot be carried over")
    return ours


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
        # Projections were one-dimensional convolutions of width 1: (1, in, out).
        weights[name] = torch.from_numpy(array.squeeze(0) if array.ndim == 3 else array)
    return GPT1ForCausalLM.from_pretrained(None, config=config, state_dict=weights), tokenizer


def _release_shapes(folder: Path) -> list[list[int]]:
    file = folder / SHAPES
    try:
        shapes = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GPT1Error(f"{folder} lacks {SHAPES}: download it from OpenAI's release, beside the arrays") from error
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
            f"{file} does not list the shapes of a GPT-1: positions, tokens, and {len(BLOCK)} a layer, of one width "
            f"that is a multiple of {HEAD_SIZE}"
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
    """The release's parameters, one in memory at a time: they lie end to end across the files, which stay on disk."""
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
            raise GPT1Error(f"{file} is damaged or is no array: download it again ({reason})") from error
        if not isinstance(part, np.ndarray) or part.dtype.kind != "f":
            raise GPT1Error(f"{file} does not hold an array of floating-point numbers: download it again")
        parts.append((total, part.reshape(-1)))
        total += part.size
    if total != (expected := sum(math.prod(shape) for shape in shapes)):
        raise GPT1Error(
            f"the arrays in {folder} hold {total:,} numbers, but {SHAPES} describes {expected:,}: one is damaged, or "
            "they are of another model"
        )
    begin = 0
    for shape in shapes:
        end = begin + math.prod(shape)
        pieces = [part[max(begin - first, 0) : max(end - first, 0)] for first, part in parts]
        yield np.concatenate(pieces).astype(np.float32, copy=False).reshape(shape)
        begin = end


# Writing OpenAIGPT's layout


def _their_config(config: GPT1Config, source: str) -> OpenAIGPTConfig:
    """
    The configuration of the OpenAIGPT that computes the same.

    Raises:
        GPT1Error: if there is none.
    """
    obstacle = None
    if config.position_embedding_type != "learned":
        obstacle = f"has {config.position_embedding_type!r} positions, and OpenAIGPT's are learned"
    elif config.intermediate_size != 4 * config.hidden_size:
        obstacle = (
            f"has an intermediate_size of {config.intermediate_size}, and OpenAIGPT's is four times the hidden_size, "
            f"{4 * config.hidden_size}"
        )
    elif config.hidden_act not in ACTIVATIONS:
        obstacle = f"uses the activation {config.hidden_act!r}, and OpenAIGPT knows only {', '.join(ACTIVATIONS)}"
    if obstacle:
        raise GPT1Error(f"{source} cannot be an OpenAIGPT: it {obstacle}")
    values = {name: getattr(config, name) for name in SHARED_VALUES}
    return OpenAIGPTConfig(
        **values, afn=ACTIVATIONS[config.hidden_act], summary_first_dropout=config.classifier_dropout
    )


def _theirs(ours: GPT1ForCausalLM, config: OpenAIGPTConfig) -> OpenAIGPTLMHeadModel:
    """Our weights in an OpenAIGPT: query, key and value as one, projections stored (in, out)."""
    weights, state = {}, ours.state_dict()
    for key, tensor in state.items():
        if "attn.k_proj" in key or "attn.v_proj" in key:
            continue
        name = key
        for projection, theirs in PROJECTIONS.items():
            name = name.replace(projection, theirs)
        if "attn.q_proj" in key:
            tensor = torch.cat([state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        weights[name] = tensor.T if name != key and tensor.dim() == 2 else tensor
    model = OpenAIGPTLMHeadModel(config).to(ours.dtype)
    model.load_state_dict(weights)
    return model


# Comparing


def _open(source: str, layout: str) -> PreTrainedModel:
    """Load a checkpoint by the class that its layout belongs to, in fp64."""
    if layout == "gpt1":
        return open_model(GPT1ForCausalLM, source, open_config(source), dtype="float64")
    return open_model(OpenAIGPTLMHeadModel, source, OpenAIGPTConfig.from_pretrained(source), dtype="float64")


def _reference(source: str, kind: str) -> PreTrainedModel:
    """
    The source as a model, in fp64, by a way of its own: a checkpoint by the class that it belongs to; the release as
    an OpenAIGPT whose parameters, which come in the same order but for the embeddings, are filled one by one.
    """
    if kind != RELEASE:
        return _open(source, kind)
    model = OpenAIGPTLMHeadModel(_their_config(_release_config(Path(source)), source)).double()
    tokens, positions, *blocks = model.transformer.parameters()
    with torch.no_grad():
        for parameter, array in zip([positions, tokens, *blocks], _release_arrays(Path(source)), strict=True):
            parameter.copy_(torch.from_numpy(array).view_as(parameter))
    return model


@torch.no_grad()
def _logits(model: PreTrainedModel) -> torch.Tensor:
    """The same random tokens, as many as the context holds, through a model: `(1, context, vocab)`."""
    shape = (1, model.config.max_position_embeddings)
    ids = torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    return model.eval()(ids).logits
