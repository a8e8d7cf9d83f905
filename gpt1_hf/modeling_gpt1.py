"""GPT-1 (Radford et al., 2018): a decoder-only transformer with layer norm after each residual sum.

The model is built on transformers' own hooks: the attention interface (eager, sdpa, flash, flex), the mask API
(padding, caches and packed rows), `GradientCheckpointingLayer`, output capturing and `loss_function`. Unlike
transformers' OpenAIGPT, it has a key/value cache, and separate `nn.Linear` projections instead of fused `Conv1D` ones.
OpenAIGPT checkpoints load through the weight mapping at the end of the file. Comments give shapes by the names of
their axes: `(batch, seq, hidden)`.

This file travels to the Hub beside every checkpoint. It imports nothing from the package but files that travel too.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from transformers import Chunk, GenerationMixin, WeightConverter
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, Transpose, WeightRenaming, _IdentityOp
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_gpt1 import GPT1Config
from .modeling_gpt1_cpu import extend_cache, is_fast_query, linear, linears, one_query_attention_forward
from .modeling_gpt1_heads import (
    CACHE,
    CausalLMHead,
    GPT1FamilyPreTrainedModel,
    MultipleChoiceHead,
    SequenceClassificationHead,
    TokenClassificationHead,
    check_keywords,
    is_readable,
    one_cache,
    without_checkpointing,
)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,  # (batch, heads, query_len, head_dim)
    key: torch.Tensor,  # (batch, heads, key_len, head_dim)
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in plain PyTorch: the only implementation that returns its probabilities."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    probabilities = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    output = torch.matmul(probabilities, value).transpose(1, 2).contiguous()  # (batch, query_len, heads, head_dim)
    return output, probabilities


def sinusoidal_positions(position_ids: torch.Tensor, size: int, dtype: torch.dtype) -> torch.Tensor:
    """
    Fixed position embeddings of Vaswani et al., 2017, §3.5: sines in the even dimensions, cosines in the odd ones.

    Args:
        position_ids (`torch.LongTensor` of shape `(batch, seq)`):
            Positions, from 0.
        size (`int`):
            Width of the embeddings.
        dtype (`torch.dtype`):
            Dtype of the result. The angles are computed in fp32.

    Returns:
        `torch.Tensor` of shape `(batch, seq, size)`.
    """
    dimensions = torch.arange(0, size, 2, device=position_ids.device, dtype=torch.float32)
    angles = position_ids[..., None].float() * torch.pow(10000.0, -dimensions / size)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :size].to(dtype)


def default_positions(
    inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None, cache: Cache | None
) -> torch.Tensor:
    """
    Positions of tokens whose positions the caller does not pass.

    Args:
        inputs_embeds (`torch.Tensor` of shape `(batch, seq, hidden)`):
            Embeddings of the tokens.
        attention_mask (`torch.Tensor`, *optional*):
            Attention mask. With a mask of shape `(batch, past + seq)`, padding is not counted.
        cache (`Cache`, *optional*):
            Cache of the `past` earlier tokens.

    Returns:
        `torch.LongTensor` of shape `(batch, seq)` or `(1, seq)`.

    Raises:
        ValueError: if the mask has fewer columns than cache and input have tokens.
    """
    seq_len = inputs_embeds.shape[1]
    past = cache.get_seq_length() if cache is not None else 0
    columns = (torch.arange(seq_len, device=inputs_embeds.device) + past).unsqueeze(0)  # (1, seq)
    if attention_mask is None or attention_mask.dim() != 2:
        return columns
    if is_readable(past) and attention_mask.shape[1] < past + seq_len:
        raise ValueError(
            f"attention_mask has {attention_mask.shape[1]} columns, but cache and input together have "
            f"{int(past) + seq_len} tokens: pass one column for each token"
        )
    positions = (attention_mask.to(columns).cumsum(-1) - 1).clamp(min=0)
    return positions[:, columns[0]]


def sees_own_branch(branch_ids: torch.Tensor) -> Callable:
    """Mask function for rows with a shared prefix (id 0): a token sees the prefix and its own branch."""

    def sees(batch_idx, head_idx, query_idx, key_idx):
        key_branch = branch_ids[batch_idx, key_idx]
        return (key_branch == 0) | (key_branch == branch_ids[batch_idx, query_idx])

    return sees


def sees_own_sequence(position_ids: torch.Tensor) -> Callable:
    """Mask function for packed rows: a token sees its own sequence. A position that does not follow on starts one."""
    starts = nn.functional.pad(position_ids.diff(dim=-1) != 1, (1, 0))
    sequences = starts.cumsum(-1)

    def sees(batch_idx, head_idx, query_idx, key_idx):
        return sequences[batch_idx, query_idx] == sequences[batch_idx, key_idx]

    return sees


class GPT1Attention(nn.Module):
    """Masked multi-head self-attention."""

    def __init__(self, config: GPT1Config, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]  # (batch, seq)
        head_shape = (*input_shape, -1, self.head_dim)
        query, key, value = (  # (batch, heads, seq, head_dim)
            states.view(head_shape).transpose(1, 2)
            for states in linears((self.q_proj, self.k_proj, self.v_proj), hidden_states)
        )
        if isinstance(cache, Cache) or CACHE == "cache":
            if cache is not None:
                key, value = extend_cache(cache, key, value, self.layer_idx, kwargs=kwargs)
        elif cache is not None:  # continuous batching: before 5.24 the attention function updated the cache
            kwargs["cache"] = cache

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        if attention_interface is sdpa_attention_forward and not self.training and is_fast_query(query):
            attention_interface = one_query_attention_forward
        output, probabilities = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attn_pdrop if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return linear(self.o_proj, output.reshape(*input_shape, -1).contiguous()), probabilities


class GPT1MLP(nn.Module):
    """Position-wise feed-forward layer."""

    def __init__(self, config: GPT1Config):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)  # type: ignore[arg-type]
        self.act_fn = ACT2FN[config.hidden_act]
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)  # type: ignore[arg-type]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return linear(self.down_proj, self.act_fn(linear(self.up_proj, hidden_states)))


class GPT1Block(GradientCheckpointingLayer):
    """Post-layer-norm block: `n = LN1(x + Attn(x)); h = LN2(n + MLP(n))` (paper §4.1, after Vaswani et al., 2017)."""

    def __init__(self, config: GPT1Config, layer_idx: int):
        super().__init__()
        self.attn = GPT1Attention(config, layer_idx)
        self.ln_1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mlp = GPT1MLP(config)
        self.ln_2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self,
        hidden_states: torch.Tensor,  # (batch, seq, hidden)
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attention, _ = self.attn(hidden_states, attention_mask=attention_mask, cache=cache, **kwargs)
        hidden_states = self.ln_1(hidden_states + self.dropout(attention))
        return self.ln_2(hidden_states + self.dropout(self.mlp(hidden_states)))


class PositionEmbedding(nn.Embedding):
    """Vectors of the positions. They have an initial scale of their own (`position_initializer_range`)."""


class GPT1PreTrainedModel(GPT1FamilyPreTrainedModel):
    """Features of every GPT-1 class, and the layout in which they save weights."""

    config: GPT1Config
    base_model_prefix = "transformer"
    _no_split_modules = ["GPT1Block"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": GPT1Block, "attentions": GPT1Attention}
    # OpenAIGPT stored its causal mask as a buffer of each layer.
    _keys_to_ignore_on_load_unexpected = [r"attn\.bias$"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, PositionEmbedding):
            init.normal_(module.weight, std=self.config.position_initializer_range)
        else:
            super()._init_weights(module)

    def save_pretrained(self, save_directory, *args, save_original_format: bool = False, **kwargs):
        """As `PreTrainedModel.save_pretrained`, but in this file's layout even after loading another one."""
        super().save_pretrained(save_directory, *args, save_original_format=save_original_format, **kwargs)


class GPT1Model(GPT1PreTrainedModel):
    """The transformer without a head. It maps token ids to the last block's states."""

    def __init__(self, config: GPT1Config):
        super().__init__(config)
        self.tokens_embed = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position_embedding_type == "learned":
            self.positions_embed = PositionEmbedding(config.max_position_embeddings, config.hidden_size)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(GPT1Block(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self.post_init()

    @property
    def takes_branches(self) -> bool:
        """Whether the attention in use supports `branch_ids`: flash attention has only a causal mask."""
        return "flash" not in self.config._attn_implementation

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        branch_ids: torch.Tensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Token ids; exactly one of `input_ids` and `inputs_embeds` is given.
            attention_mask (`torch.Tensor` of shape `(batch, past + seq)`, *optional*):
                1 for tokens, 0 for padding.
            token_type_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Ids whose *token* embeddings are added to each position, as in transformers' OpenAIGPT.
            position_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Positions. The default counts the tokens in a mask of shape `(batch, past + seq)`, so that padding on
                the left does not shift a text. Without such a mask, it continues from the end of the cache. If there
                is no mask and no cache, a position that is not its left neighbour's plus one starts a new sequence in
                a packed row, which does not see the tokens before it.
            past_key_values, cache (`Cache`, *optional*):
                Keys and values of earlier tokens. The two are names of the same argument; transformers 5.24 replaced
                the first by the second.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, seq, hidden)`, *optional*):
                Token embeddings instead of ids.
            branch_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                For rows that hold a prefix and several continuations: 0 for tokens of the prefix, k for those of the
                k-th branch, which see only the prefix and their own branch. They need `position_ids`.
            use_cache (`bool`, *optional*):
                Whether to return the cache; defaults to the config's value.

        Returns:
            `BaseModelOutputWithPast` with `last_hidden_state` of shape `(batch, seq, hidden)`.

        Raises:
            ValueError: if a position exceeds `max_position_embeddings`; if both or neither of the inputs, or both
                names of the cache, are passed; if a cache holds tokens during activation checkpointing; if the mask
                is shorter than cache and input; or if `branch_ids` come without positions, with a cache, or to flash
                attention.
            TypeError: if an unknown argument resembles a known one or belongs to a head.
        """
        cache = one_cache(cache, past_key_values)
        if cache is None or isinstance(cache, Cache):  # continuous batching passes further arguments
            check_keywords(self, kwargs)
        if branch_ids is not None and (position_ids is None or cache is not None or not self.takes_branches):
            raise ValueError("branch_ids need position_ids, no cache, and eager, sdpa or flex attention")
        hidden_states = self._embed(input_ids, inputs_embeds)
        causal_mask = self._causal_mask(hidden_states, attention_mask, position_ids, branch_ids, cache)
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        cache = without_checkpointing(self, cache)
        n_positions = None  # the number of positions in use, if the shapes tell
        if position_ids is None:
            position_ids = default_positions(hidden_states, attention_mask, cache)
            past = cache.get_seq_length() if cache is not None else 0
            if attention_mask is None and isinstance(past, int):
                n_positions = past + hidden_states.shape[1]

        if token_type_ids is not None:
            hidden_states = hidden_states + self.tokens_embed(token_type_ids)
        # A rank of vLLM's pipeline (vLLM's transformers/base.py) has an identity in place of each block that another
        # rank computes, and receives states as embeddings. The first rank has already added the positions.
        is_first_rank = not self.h or not isinstance(self.h[0], nn.Identity)
        if is_first_rank and self.config.position_embedding_type == "learned":
            self._check_positions(position_ids, n_positions)
            hidden_states = hidden_states + self.positions_embed(position_ids)
        elif is_first_rank and self.config.position_embedding_type == "sinusoidal":
            # Vaswani et al. scale the token embeddings up to a standard deviation of 1, with waves of amplitude 1.
            # Here the waves are scaled down instead, because the embeddings are also the output layer.
            waves = sinusoidal_positions(position_ids, self.config.hidden_size, hidden_states.dtype)
            hidden_states = hidden_states + cast(float, self.config.position_initializer_range) * waves
        hidden_states = self.drop(hidden_states)

        for block in self.h:
            hidden_states = block(
                hidden_states,
                attention_mask=causal_mask,
                cache=cache,
                position_ids=position_ids,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=hidden_states, **{CACHE: cache})

    def _causal_mask(self, hidden_states, attention_mask, position_ids, branch_ids, cache):
        """The mask in the form that the attention in use needs; `None` if it needs none."""
        mask_function, reads_mask = None, True
        if branch_ids is not None:
            # The positions of branches also restart, but a branch sees the prefix before it.
            position_ids, mask_function = None, sees_own_branch(branch_ids)
        elif not torch.compiler.is_compiling() and not is_readable(hidden_states):
            # Of a mask without padding and of positions without restarts, the library makes no mask. It would wait for
            # the device to find out.
            reads_mask = attention_mask is None and (cache is None or isinstance(cache.get_seq_length(), int))
            if position_ids is not None and attention_mask is None and cache is None:
                if "flash" not in self.config._attn_implementation:  # which finds packed rows itself
                    mask_function = sees_own_sequence(position_ids.expand(len(hidden_states), -1))
                position_ids = None
        # The caller's positions mark packed rows, if there is no cache. Default positions are not passed: without
        # them the mask stays implicit, which fast attention kernels need.
        return create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            position_ids=position_ids,
            and_mask_function=mask_function,
            allow_is_causal_skip=reads_mask,
            **{CACHE: cache},
        )

    def _check_positions(self, position_ids: torch.Tensor, n_positions: int | None):
        # An index error from `nn.Embedding` does not say what is wrong, and on a GPU it ends the process. Positions on
        # a GPU are checked only if their shape tells: looking at them would wait for the device.
        if is_readable(position_ids):
            n_positions = int(position_ids.max()) + 1
        elif torch.compiler.is_compiling() or n_positions is None:
            return
        if n_positions > self.config.max_position_embeddings:
            raise ValueError(
                f"the input needs {n_positions} positions, but this model has {self.config.max_position_embeddings} "
                "(max_position_embeddings): shorten the text or generate fewer new tokens"
            )


class GPT1ForCausalLM(CausalLMHead, GPT1PreTrainedModel, GenerationMixin):
    """GPT-1 with the language-model head (paper eq. 1–2)."""

    base_class = GPT1Model
    _tied_weights_keys = {"lm_head.weight": "transformer.tokens_embed.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def _validate_generated_length(self, generation_config, input_ids_length, has_default_max_length):
        super()._validate_generated_length(generation_config, input_ids_length, has_default_max_length)
        # Fail before generating hundreds of tokens. The last token is not an input and needs no position.
        n_positions = generation_config.max_length - 1
        if self.config.position_embedding_type == "learned" and n_positions > self.config.max_position_embeddings:
            raise ValueError(
                f"max_length {generation_config.max_length} is more than this model's context holds "
                f"(max_position_embeddings {self.config.max_position_embeddings}): shorten the prompt of "
                f"{input_ids_length} tokens or generate fewer new tokens"
            )


class GPT1ForSequenceClassification(SequenceClassificationHead, GPT1PreTrainedModel):
    """GPT-1 for the classification, entailment and similarity formats."""

    base_class = GPT1Model


class GPT1ForMultipleChoice(MultipleChoiceHead, GPT1PreTrainedModel):
    """GPT-1 for the multiple-choice format."""

    base_class = GPT1Model


class GPT1ForTokenClassification(TokenClassificationHead, GPT1PreTrainedModel):
    """GPT-1 for token classification, which is not in the paper."""

    base_class = GPT1Model


class _JoinShards(ConversionOps):
    """
    Puts a checkpoint's tensor together again, if the model's weights are sharded (tensor parallelism, FSDP).

    The loader gives each process the part of a tensor that it would hold if the tensor had the layout of the model's
    first weight. Other layouts need the whole tensor, which [`_CutShards`] cuts after the conversion.
    """

    @torch.no_grad()
    def convert(self, input_dict, source_patterns, target_patterns, full_layer_name, model, **kwargs):
        weight = model.get_parameter(full_layer_name)
        return {name: _whole(*tensors, like=weight) for name, tensors in input_dict.items()}

    @property
    def reverse_op(self):
        return _IdentityOp()  # weights to save are whole


class _CutShards(ConversionOps):
    """Cuts converted tensors into the parts that this process holds."""

    @torch.no_grad()
    def convert(self, input_dict, source_patterns, target_patterns, full_layer_name, model, **kwargs):
        names = {pattern: full_layer_name.replace(target_patterns[0], pattern) for pattern in input_dict}
        return {
            pattern: _own_part(tensor, like=model.get_parameter(names[pattern]))
            for pattern, tensor in input_dict.items()
        }

    @property
    def reverse_op(self):
        return _IdentityOp()


def _whole(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """The tensor of which each process holds a part, cut as `like` is. All processes must call this."""
    if not hasattr(like, "device_mesh"):  # not a DTensor
        return tensor
    mesh, shape = like.device_mesh, list(tensor.shape)
    for mesh_dim, placement in reversed(list(enumerate(like.placements))):
        if placement.is_shard():
            size = torch.tensor(shape[placement.dim], device=tensor.device)
            torch.distributed.all_reduce(size, group=mesh.get_group(mesh_dim))
            shape[placement.dim] = int(size)
    meta = torch.empty(shape, device="meta")
    parts = type(like).from_local(
        tensor, mesh, like.placements, run_check=False, shape=meta.shape, stride=meta.stride()
    )
    return parts.full_tensor()


def _own_part(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """The part of a whole tensor that this process holds, cut as `like` is."""
    if not hasattr(like, "device_mesh") or tensor.shape != like.shape:  # the loader reports a wrong shape
        return tensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    for dim, (start, length) in enumerate(zip(offset, shape, strict=True)):
        tensor = tensor.narrow(dim, start, length)
    return tensor.contiguous()


# How `from_pretrained` converts a checkpoint of transformers' OpenAIGPT, whose fused Conv1D weights are stored as
# (in, out). The mapping is registered under the base class's name because such a folder's config names another model
# type, and with `overwrite` because this file may be loaded twice: from the package and as remote code.
register_checkpoint_conversion_mapping(
    "GPT1Model",
    [
        WeightConverter(
            "attn.c_attn.weight",
            ["attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"],
            [_JoinShards(), Transpose(0, 1), Chunk(dim=0), _CutShards()],
        ),
        WeightConverter(
            "attn.c_attn.bias",
            ["attn.q_proj.bias", "attn.k_proj.bias", "attn.v_proj.bias"],
            [_JoinShards(), Chunk(dim=0), _CutShards()],
        ),
        WeightConverter("attn.c_proj.weight", "attn.o_proj.weight", [_JoinShards(), Transpose(0, 1), _CutShards()]),
        WeightRenaming("attn.c_proj.bias", "attn.o_proj.bias"),
        WeightConverter("mlp.c_fc.weight", "mlp.up_proj.weight", [_JoinShards(), Transpose(0, 1), _CutShards()]),
        WeightRenaming("mlp.c_fc.bias", "mlp.up_proj.bias"),
        WeightConverter("mlp.c_proj.weight", "mlp.down_proj.weight", [_JoinShards(), Transpose(0, 1), _CutShards()]),
        WeightRenaming("mlp.c_proj.bias", "mlp.down_proj.bias"),
    ],
    overwrite=True,
)

# If `Trainer` computes the loss itself (`label_smoothing_factor`), it shifts the labels of the classes in this list.
# Registering a class with `AutoModelForCausalLM` does not add it.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["gpt1"] = "GPT1ForCausalLM"


__all__ = [
    "GPT1ForCausalLM",
    "GPT1ForMultipleChoice",
    "GPT1ForSequenceClassification",
    "GPT1ForTokenClassification",
    "GPT1Model",
    "GPT1PreTrainedModel",
]
