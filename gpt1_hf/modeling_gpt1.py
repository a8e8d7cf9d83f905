"""GPT-1 (Radford et al., 2018): a decoder-only transformer with layer norm after each residual sum, and its heads.

Written on transformers' own hooks: the attention interface (eager, sdpa, flash, flex), the mask API (padding, caches
and packed rows), `GradientCheckpointingLayer`, output capturing and `loss_function`. It differs from transformers'
OpenAIGPT in having a key/value cache, and separate `nn.Linear` projections where that has fused `Conv1D` ones;
checkpoints of the latter load through the weight mapping at the end of the file. Shapes in comments name their axes:
`(batch, seq, hidden)`.

This file travels to the Hub beside every checkpoint; it imports nothing of the package but its siblings.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import Chunk, GenerationMixin, PreTrainedConfig, PreTrainedModel, WeightConverter
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Transpose, WeightRenaming
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_gpt1 import GPT1Config


logger = logging.get_logger(__name__)

# What the library calls the cache in its outputs and in its mask functions: transformers 5.24 renamed
# `past_key_values`. Our own code says `cache`, and the models take either name.
CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """
    The cache that the caller gave, under either of its names.

    Raises:
        ValueError: if it was given under both.
    """
    if cache is not None and past_key_values is not None:
        raise ValueError("`cache` and `past_key_values` are two names of one argument: give one of them")
    return past_key_values if cache is None else cache


def without_checkpointing(model: PreTrainedModel, cache: Cache | None) -> Cache | None:
    """
    The cache, but none where activation checkpointing computes every block twice, which would add its keys twice.

    Raises:
        ValueError: if it holds tokens then, which the input would not see.
    """
    if cache is None or not (model.gradient_checkpointing and model.training and torch.is_grad_enabled()):
        return cache
    if cache.get_seq_length():
        raise ValueError(
            "the cache holds earlier tokens, and activation checkpointing cannot add to it: train without one of them"
        )
    return None


def check_keywords(model: PreTrainedModel, keywords: dict[str, Any]):
    """
    Refuse keyword arguments that are mistaken for arguments of a model.

    The library hands arguments through the model to the attention function, which users can exchange; so a name that
    is unknown here need not be wrong. One that a model of this family has elsewhere, or nearly has, is.

    Args:
        model (`PreTrainedModel`):
            Base model that was given them.
        keywords (`dict`):
            Arguments that its `forward` does not name.

    Raises:
        TypeError: if one of them is another class's argument (`labels` to a base model), or nearly an argument.
    """
    unknown = [name for name in keywords if name not in PASSED_THROUGH]
    if not unknown:
        return
    own = inspect.signature(model.forward).parameters.keys() - {"kwargs"}
    known = own | ARGUMENTS_OF_HEADS
    for name in unknown:
        where = f"{type(model).__name__}.forward() got an unexpected keyword argument {name!r}"
        if name in known:
            raise TypeError(f"{where}, which only models with a head take")
        if near := difflib.get_close_matches(name, known | PASSED_THROUGH, n=1, cutoff=0.8):
            raise TypeError(f"{where}: did you mean {near[0]!r}?")
        logger.warning_once(f"{where}: it has no effect unless the attention function in use reads it")


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
    """Attention spelled out, the one implementation that returns its probabilities."""
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
            Type of the result; the angles are computed in fp32.

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
    Positions of tokens that the caller gives none for.

    Args:
        inputs_embeds (`torch.Tensor` of shape `(batch, seq, hidden)`):
            Embeddings of the tokens.
        attention_mask (`torch.Tensor`, *optional*):
            Mask; one of shape `(batch, past + seq)` says which tokens count, so that padding does not.
        cache (`Cache`, *optional*):
            Cache of the `past` tokens before them.

    Returns:
        `torch.LongTensor` of shape `(batch, seq)` or `(1, seq)`.

    Raises:
        ValueError: if the mask has not a column for each token, those of the cache included.
    """
    seq_len = inputs_embeds.shape[1]
    past = cache.get_seq_length() if cache is not None else 0
    columns = (torch.arange(seq_len, device=inputs_embeds.device) + past).unsqueeze(0)  # (1, seq)
    if attention_mask is None or attention_mask.dim() != 2:
        return columns
    if not torch.compiler.is_compiling() and attention_mask.shape[1] < past + seq_len:
        raise ValueError(
            f"attention_mask has {attention_mask.shape[1]} columns, but cache and input together have "
            f"{int(past) + seq_len} tokens: give it one column for each"
        )
    positions = (attention_mask.to(columns).cumsum(-1) - 1).clamp(min=0)
    return positions[:, columns[0]]


def sees_own_branch(branch_ids: torch.Tensor) -> Callable:
    """Mask function of rows that hold a prefix (id 0) and its continuations: a token sees the prefix and its own."""

    def sees(batch_idx, head_idx, query_idx, key_idx):
        key_branch = branch_ids[batch_idx, key_idx]
        return (key_branch == 0) | (key_branch == branch_ids[batch_idx, query_idx])

    return sees


# Logits that exist at one time in `linear_cross_entropy`: 2^25 of them take 128 MiB in fp32.
LOGITS_PER_CHUNK = 1 << 25


class _LinearCrossEntropy(torch.autograd.Function):
    # The loss is a sum over tokens, so that a chunk's gradients are known as soon as its logits are; those are kept,
    # these are not. torch's own `linear_cross_entropy` (from 2.12) does the same, but knows no weight per token there
    # and rounds the loss to the type of the states.
    @staticmethod
    def forward(ctx, states, weight, targets, token_weights):
        device_type = states.device.type
        autocast = torch.is_autocast_enabled(device_type)
        dtype = torch.get_autocast_dtype(device_type) if autocast else states.dtype
        inputs, matrix = states.to(dtype), weight.to(dtype)
        needs_states, needs_weight = ctx.needs_input_grad[:2]
        # The mean over many tokens weighs each by less than fp16 can hold exactly: gradients are computed with weights
        # of at most 1, and get the common factor in the backward pass, together with the one of a gradient scaler.
        largest = token_weights.abs().max() if len(targets) else token_weights.new_ones(())
        factor = largest.clamp(min=torch.finfo(torch.float32).tiny)
        relative_weights = token_weights / factor
        weighted_inputs = (inputs * relative_weights[:, None]).to(dtype) if needs_weight else None
        grad_states = torch.empty_like(inputs) if needs_states else None
        grad_weight = None
        loss = torch.zeros((), dtype=torch.float32, device=states.device)
        # The same memory for every chunk: new pages of this size cost as much as a pass over them.
        rows = max(1, min(len(targets), LOGITS_PER_CHUNK // len(weight)))
        logits, grad_logits = (inputs.new_empty(rows, len(weight)) for _ in range(2))
        wide_logits, log_probs = (inputs.new_empty(rows, len(weight), dtype=torch.float32) for _ in range(2))
        for start in range(0, len(targets), rows):
            chunk = slice(start, min(start + rows, len(targets)))
            target, token_weight = targets[chunk, None], relative_weights[chunk, None]
            n = len(target)
            torch.mm(inputs[chunk], matrix.T, out=logits[:n])
            torch.log_softmax(wide_logits[:n].copy_(logits[:n]), -1, out=log_probs[:n])
            target_log_probs = log_probs[:n].gather(1, target)
            loss -= (target_log_probs * token_weight).sum()
            if needs_states or needs_weight:  # p - 1 at the target, p elsewhere
                torch.softmax(logits[:n], -1, out=grad_logits[:n])
                grad_logits[:n].scatter_(1, target, target_log_probs.expm1().to(dtype))
            if needs_states:
                grad_states[chunk] = (grad_logits[:n] @ matrix) * token_weight
            if needs_weight:
                product = grad_logits[:n].T @ weighted_inputs[chunk]
                grad_weight = product.float() if grad_weight is None else grad_weight.add_(product)
        if needs_weight and grad_weight is None:  # of no targets at all
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        ctx.save_for_backward(grad_states, grad_weight, factor)
        ctx.dtypes = states.dtype, weight.dtype
        return loss * factor

    @staticmethod
    def backward(ctx, grad_loss):
        *grads, factor = ctx.saved_tensors
        factor = factor * grad_loss
        scaled = [
            None if grad is None else (grad.float() * factor).to(dtype)
            for grad, dtype in zip(grads, ctx.dtypes, strict=True)
        ]
        return *scaled, None, None


def linear_cross_entropy(
    states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, token_weights: torch.Tensor
) -> torch.Tensor:
    """
    Weighted sum of the cross-entropies of `softmax(states @ weight.T)`, without ever holding all logits.

    Args:
        states (`torch.Tensor` of shape `(n, hidden)`):
            States to predict from.
        weight (`torch.Tensor` of shape `(vocab, hidden)`):
            Output embeddings.
        targets (`torch.LongTensor` of shape `(n,)`):
            Ids to predict; any, where the token's weight is 0.
        token_weights (`torch.FloatTensor` of shape `(n,)`):
            Weight of each token in the sum.

    Returns:
        `torch.FloatTensor`: the loss, a scalar in nats, in fp32. Differentiable once.
    """
    return _LinearCrossEntropy.apply(states, weight, targets.clamp(min=0), token_weights.float())


def causal_lm_loss(
    states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    shift_labels: torch.Tensor | None = None,
    ignore_index: int = -100,
    **kwargs: Unpack[TransformersKwargs],
) -> torch.Tensor:
    """transformers' `ForCausalLMLoss` (loss/loss_utils.py), from the states `(batch, seq, hidden)`."""
    if shift_labels is None:
        states, shift_labels = states[:, :-1], labels[:, 1:]
    counted = shift_labels != ignore_index
    n_items = counted.sum() if num_items_in_batch is None else num_items_in_batch
    token_weights = (counted / n_items).flatten()
    return linear_cross_entropy(states.flatten(0, 1), weight, shift_labels.flatten(), token_weights)


def smoothed_causal_lm_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float,
    num_items_in_batch: torch.Tensor | int | None = None,
    shift_labels: torch.Tensor | None = None,
    ignore_index: int = -100,
    **kwargs: Unpack[TransformersKwargs],
) -> torch.Tensor:
    """transformers' `ForCausalLMLoss`, with a share of each target spread evenly over the vocabulary."""
    if shift_labels is None:
        logits, shift_labels = logits[:, :-1], labels[:, 1:]
    n_items = (shift_labels != ignore_index).sum() if num_items_in_batch is None else num_items_in_batch
    losses = nn.functional.cross_entropy(
        logits.float().flatten(0, 1),
        shift_labels.flatten().to(logits.device),
        ignore_index=ignore_index,
        reduction="sum",
        label_smoothing=smoothing,
    )
    return losses / n_items


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
        query = self.q_proj(hidden_states).view(head_shape).transpose(1, 2)  # (batch, heads, seq, head_dim)
        key = self.k_proj(hidden_states).view(head_shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(head_shape).transpose(1, 2)
        if isinstance(cache, Cache) or CACHE == "cache":
            if cache is not None:
                key, value = cache.update(key, value, self.layer_idx, kwargs=kwargs)
        elif cache is not None:  # continuous batching: before 5.24 the attention function itself updated its cache
            kwargs["cache"] = cache

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
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
        return self.o_proj(output.reshape(*input_shape, -1).contiguous()), probabilities


class GPT1MLP(nn.Module):
    """Position-wise feed-forward layer."""

    def __init__(self, config: GPT1Config):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act_fn = ACT2FN[config.hidden_act]
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))


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


class GPT1PreTrainedModel(PreTrainedModel):
    """What every GPT-1 class shares: which hooks it supports, how weights are drawn, how they are saved."""

    config: GPT1Config
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GPT1Block"]
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": GPT1Block, "attentions": GPT1Attention}
    # OpenAIGPT kept its causal mask as a buffer of each layer.
    _keys_to_ignore_on_load_unexpected = [r"attn\.bias$"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        # The base class reads 0.0 as "unset" and draws with 0.02 (modeling_utils.py, `initializer_range or 0.02`).
        if self.config.initializer_range == 0.0 and isinstance(module, nn.Linear | nn.Embedding):
            init.zeros_(module.weight)

    def save_pretrained(self, save_directory, *args, save_original_format: bool = False, **kwargs):
        """As `PreTrainedModel.save_pretrained`, but always in this file's layout, whatever was loaded."""
        super().save_pretrained(save_directory, *args, save_original_format=save_original_format, **kwargs)


class GPT1Model(GPT1PreTrainedModel):
    """The transformer without a head: token ids in, the last block's states out."""

    def __init__(self, config: GPT1Config):
        super().__init__(config)
        self.tokens_embed = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position_embedding_type == "learned":
            self.positions_embed = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(GPT1Block(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.tokens_embed

    def set_input_embeddings(self, value: nn.Embedding):
        self.tokens_embed = value

    @property
    def takes_branches(self) -> bool:
        """Whether the attention in use can read `branch_ids`: flash attention knows no mask but a causal one."""
        return "flash" not in self.config._attn_implementation

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        branch_ids: torch.LongTensor | None = None,
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
                Rows of the *token* embedding that are added to each position, as in transformers' OpenAIGPT.
            position_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Positions. By default they count the tokens that the mask of shape `(batch, past + seq)` shows, so
                that padding on the left does not move a text; without such a mask, all tokens from the cache on.
                Without mask and cache, a position that does not follow its left neighbour's starts a new sequence of
                a packed row, which sees nothing before it.
            past_key_values, cache (`Cache`, *optional*):
                Keys and values of earlier tokens: two names of one argument, the older of which transformers 5.24
                gave up.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, seq, hidden)`, *optional*):
                Token embeddings in place of ids.
            branch_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Of rows that hold a prefix and several continuations of it: 0 for the tokens of the prefix, k for those
                of the k-th branch, which see the prefix and their own branch only. `position_ids` go with them.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`; defaults to the config's.

        Returns:
            `BaseModelOutputWithPast` with `last_hidden_state` of shape `(batch, seq, hidden)`.

        Raises:
            ValueError: if a position lies beyond `max_position_embeddings`, both or neither of the inputs or both
            names of the cache are given, a cache holds tokens while blocks are computed twice (activation
            checkpointing), the mask is shorter than cache and input, or `branch_ids` come without positions, with a
            cache, or to flash attention.
            TypeError: if an argument is unknown and resembles a known one, or is one of the heads'.
        """
        cache = one_cache(cache, past_key_values)
        if cache is None or isinstance(cache, Cache):  # continuous batching has its own arguments beside its cache
            check_keywords(self, kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if branch_ids is not None and (position_ids is None or cache is not None or not self.takes_branches):
            raise ValueError("branch_ids need position_ids, no cache, and eager, sdpa or flex attention")
        if inputs_embeds is None:
            inputs_embeds = self.tokens_embed(input_ids)
        # Only positions that the caller gives can tell of packed rows, and only while there is no cache. With default
        # ones the mask stays implicit, which fast attention kernels need.
        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            # Those of branches restart, too, but what comes before is not hidden from them.
            position_ids=position_ids if branch_ids is None else None,
            and_mask_function=None if branch_ids is None else sees_own_branch(branch_ids),
            **{CACHE: cache},
        )
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        cache = without_checkpointing(self, cache)
        if position_ids is None:
            position_ids = default_positions(inputs_embeds, attention_mask, cache)

        hidden_states = inputs_embeds
        if token_type_ids is not None:
            hidden_states = hidden_states + self.tokens_embed(token_type_ids)
        # A rank of vLLM's pipeline (transformers/base.py there) has an identity in the place of each block that others
        # compute, and is given their states as embeddings: the first rank has added the positions.
        starts = not self.h or not isinstance(self.h[0], nn.Identity)
        if starts and self.config.position_embedding_type == "learned":
            self._check_positions(position_ids)
            hidden_states = hidden_states + self.positions_embed(position_ids)
        elif starts and self.config.position_embedding_type == "sinusoidal":
            # Vaswani et al. scale the token embeddings up, to a standard deviation of 1 beside waves of amplitude 1.
            # Here the waves are scaled down, as the embeddings are also the output layer.
            hidden_states = hidden_states + self.config.initializer_range * sinusoidal_positions(
                position_ids, self.config.hidden_size, hidden_states.dtype
            )
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

    def _check_positions(self, position_ids: torch.Tensor):
        # An index error of `nn.Embedding` names nothing, and on a GPU it ends the process.
        if not torch.compiler.is_compiling() and position_ids.max() >= self.config.max_position_embeddings:
            raise ValueError(
                f"the input needs {int(position_ids.max()) + 1} positions, but this model has "
                f"{self.config.max_position_embeddings} (max_position_embeddings); shorten the text, or ask for fewer "
                "new tokens"
            )


class CausalLMHead(GenerationMixin):
    """The language-model head on any base model of the family (`base_class`), tied to its token embeddings."""

    base_class: type[PreTrainedModel]

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.base_class(config))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool = False,
        cache: Cache | None = None,
        smoothing: float = 0.0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        r"""
        Args (the others as in [`GPT1Model.forward`]):
            labels (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Target ids, normally `input_ids` themselves: position i is scored by the logits at i − 1. −100 is
                ignored.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Compute the logits of the last so many positions only; 0 means all.
            skip_logits (`bool`, *optional*, defaults to `False`):
                With labels, return the loss without the logits: the same value and gradients, in a fraction of the
                memory. [`GPT1Trainer`] trains so.
            smoothing (`float`, *optional*, defaults to 0.0):
                Share of each target that is spread evenly over the vocabulary; the logits are then not skipped.

        Returns:
            `CausalLMOutputWithPast` with `logits` of shape `(batch, seq, vocab)` and, given labels, the mean `loss` in
            nats per target token.
        """
        outputs: BaseModelOutputWithPast = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            cache=one_cache(cache, past_key_values),
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = loss = None
        # Not of a head that an adapter or a quantizer has replaced: its weight is not all there is to it.
        if skip_logits and not smoothing and labels is not None and type(self.lm_head) is nn.Linear:
            loss = causal_lm_loss(outputs.last_hidden_state, self.lm_head.weight, labels, **kwargs)
        else:
            logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
            if labels is not None and smoothing:
                loss = smoothed_causal_lm_loss(logits, labels, smoothing, **kwargs)
            elif labels is not None:
                loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
        )

    def prepare_inputs_for_generation(self, input_ids, *args, inputs_embeds=None, **kwargs):
        inputs = super().prepare_inputs_for_generation(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)
        # PEFT (0.21) looks for the cache by its older name only. Where it sees none, it puts its virtual tokens before
        # every new token, beside the cache that has them already.
        if "cache" in inputs:
            inputs["past_key_values"] = inputs.pop("cache")
        return inputs


class GPT1ForCausalLM(CausalLMHead, GPT1PreTrainedModel, GenerationMixin):
    """GPT-1 with the language-model head (paper eq. 1–2)."""

    base_class = GPT1Model
    _tied_weights_keys = {"lm_head.weight": "transformer.tokens_embed.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def _validate_generated_length(self, generation_config, input_ids_length, has_default_max_length):
        super()._validate_generated_length(generation_config, input_ids_length, has_default_max_length)
        # At once, not after hundreds of tokens. The last token is not read again, and needs no position.
        n_positions = generation_config.max_length - 1
        if self.config.position_embedding_type == "learned" and n_positions > self.config.max_position_embeddings:
            raise ValueError(
                f"max_length {generation_config.max_length} is more than this model's context holds "
                f"(max_position_embeddings {self.config.max_position_embeddings}): shorten the prompt of "
                f"{input_ids_length} tokens, or ask for fewer new tokens"
            )


@dataclass
class GPT1TaskOutput(SequenceClassifierOutputWithPast):
    """
    The library's output of a classifier, whose `loss` is `task_loss + lm_coef * lm_loss` (paper eq. 5), and its terms.
    `logits` are scores before the softmax: `(batch, num_labels)` for sequences, `(batch, choices)` for multiple
    choice, `(batch, seq, num_labels)` for tokens.

    Args:
        task_loss (`torch.FloatTensor`, *optional*):
            The supervised part of `loss` (paper eq. 4), returned when the auxiliary objective is on.
        lm_loss (`torch.FloatTensor`, *optional*):
            The language-model part: the mean over examples of each sequence's mean token loss, in nats.
    """

    task_loss: torch.FloatTensor | None = None
    lm_loss: torch.FloatTensor | None = None


def packed_sequences(position_ids: torch.Tensor) -> torch.Tensor | None:
    """Index of the packed sequence that each token belongs to, `(rows, seq)`; `None` if each row is one sequence."""
    follows = position_ids[:, 1:] == position_ids[:, :-1] + 1
    if follows.all():
        return None
    starts = nn.functional.pad(~follows, (1, 0), value=True)
    return (starts.flatten().cumsum(0) - 1).view_as(starts)


class Branches(NamedTuple):
    """
    Where the rows of each example lie in a row that holds their common prefix once, followed by what is left of each.

    Args:
        ids (`torch.LongTensor` of shape `(batch, seq)`):
            0 for the tokens of the prefix, k for those of the k-th branch.
        position_ids (`torch.LongTensor` of shape `(batch, seq)`):
            Positions of the tokens in their own rows.
        starts, ends (`torch.LongTensor` of shape `(batch, branches)`):
            Indices of each branch's first and last token.
        is_token (`torch.BoolTensor` of shape `(batch, seq)`):
            False at padding.
    """

    ids: torch.Tensor
    position_ids: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    is_token: torch.Tensor

    @classmethod
    def find(cls, starts: torch.Tensor, token_mask: torch.Tensor | None, shape: torch.Size) -> "Branches":
        """Of a batch of shape `(batch, seq)`, padded on either side, from where the branches start."""
        if token_mask is None:
            token_mask = starts.new_ones(shape)
        is_token = token_mask.bool()
        index = torch.arange(shape[1], device=starts.device)
        ids = (index[:, None] >= starts[:, None]).sum(-1)  # (batch, seq)
        past_prefix = (starts - starts[:, :1]).gather(1, (ids - 1).clamp(min=0))  # tokens of the branches before
        position_ids = (is_token.cumsum(-1) - 1 - past_prefix).clamp(min=0)
        ends = torch.cat([starts[:, 1:] - 1, (is_token * index).argmax(-1, keepdim=True)], dim=-1)
        return cls(ids, position_ids, starts, ends, is_token)

    def lengths(self) -> torch.Tensor:
        """Number of tokens of each row, prefix included, `(batch, branches)`."""
        n_prefix = (self.is_token & (self.ids == 0)).sum(-1, keepdim=True)
        return n_prefix + self.ends - self.starts + 1

    def separate(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows apart, `(batch, branches, longest, ...)`, of a tensor `(batch, seq, ...)`; 0 at padding."""
        lengths = self.lengths()[..., None]  # (batch, branches, 1)
        starts, first = self.starts[..., None], self.is_token.int().argmax(-1)[:, None, None]
        index = torch.arange(int(lengths.max()), device=tensor.device)
        source = torch.where(first + index < starts[:, :1], first, starts - starts[:, :1] + first) + index
        in_row = index < lengths
        rows = tensor[torch.arange(len(tensor), device=tensor.device)[:, None, None], source * in_row]
        return rows * in_row.view(*in_row.shape, *[1] * (rows.dim() - 3))


def extract_states(
    hidden_states: torch.Tensor, token_mask: torch.Tensor | None, sequences: "torch.Tensor | Branches | None"
) -> torch.Tensor:
    """State of each sequence's last token, `(sequences, hidden)`, for padding on either side."""
    if isinstance(sequences, Branches):
        index = torch.arange(len(hidden_states), device=hidden_states.device)[:, None]
        return hidden_states[index, sequences.ends].flatten(0, 1)
    if sequences is not None:
        return hidden_states[nn.functional.pad(sequences[:, 1:] != sequences[:, :-1], (0, 1), value=True)]
    rows, seq_len = hidden_states.shape[:2]
    positions = torch.arange(seq_len, device=hidden_states.device)
    last = positions[-1].expand(rows)
    if token_mask is not None:
        last = (token_mask.to(positions.dtype) * positions).argmax(-1)
    return hidden_states[torch.arange(rows, device=hidden_states.device), last]


class TaskHead:
    """
    What the task heads share, on any base model of the family (`base_class`): the pass through the base model, and the
    two terms of the loss. A head defines `_logits`, what its classifier makes of the states `(batch * n_rows, seq,
    hidden)`, and, where that is not a cross-entropy, what its labels cost.

    The task term is the sum of the labels' losses divided by `num_items_in_batch`, the number of labels of a whole
    update; the auxiliary term weighs each sequence by the labels it has. So both add up over gradient accumulation and
    processes to what one batch would give.
    """

    base_class: type[PreTrainedModel]

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        setattr(self, self.base_model_prefix, self.base_class(config))
        self.dropout = nn.Dropout(config.classifier_dropout)
        # The name under which PEFT looks for a head that is to be trained and saved beside an adapter.
        self.classifier = nn.Linear(config.hidden_size, self.n_outputs)
        self.post_init()

    @property
    def n_outputs(self) -> int:
        """Width of the classifier."""
        return self.config.num_labels

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        branch_starts: torch.LongTensor | None = None,
        cache: Cache | None = None,
        smoothing: float = 0.0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GPT1TaskOutput:
        r"""
        Args (the others as in [`GPT1Model.forward`], in the shape of `input_ids`):
            input_ids (`torch.LongTensor` of shape `(batch, seq)` or `(batch, rows, seq)`, *optional*):
                Token ids, each row ending in the extract token. The rows of an example are its answers in multiple
                choice, and the two orders of a pair in sequence classification. Of packed rows (`position_ids` that
                restart, no mask), each sequence is an example of its own.
            labels (`torch.LongTensor` or `torch.FloatTensor`, *optional*):
                What the head predicts, see there; −100 is ignored.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Number of labels that the loss is averaged over, given by Trainer when one update spans several batches
                or processes; defaults to this batch's own.
            branch_starts (`torch.LongTensor` of shape `(batch, rows)`, *optional*):
                Where input of shape `(batch, seq)` holds the rows of each example in one, their common prefix first
                and once, then what follows it in each of them: the indices at which these branches begin. The result
                is that of `(batch, rows, seq)`, for the work of the shorter input. A base model that cannot share a
                prefix, as the LSTM, gets the rows apart.
            smoothing (`float`, *optional*, defaults to 0.0):
                Share of each label that is spread evenly over the classes, or the choices, in `task_loss`.

        Returns:
            [`GPT1TaskOutput`]. With a cache, the task loss is that of the whole input, the auxiliary loss that of the
            tokens after the cache.

        Raises:
            ValueError: as [`GPT1Model.forward`]; if labels are not of the kind that the head predicts; or if the
            labels were taken away, as `Trainer` does for `label_smoothing_factor`, so that the auxiliary loss would
            vanish.
        """
        if labels is None and num_items_in_batch is not None and self.config.lm_coef:
            raise ValueError(
                "num_items_in_batch without labels: Trainer keeps the labels from the model where "
                "label_smoothing_factor or compute_loss_func is set, and the auxiliary language-model loss would "
                "vanish; use GPT1Trainer, which smooths the task loss, or set config.lm_coef to 0"
            )
        cache = one_cache(cache, past_key_values)
        branches = None
        if branch_starts is not None:
            shape = (inputs_embeds if input_ids is None else input_ids).shape[:2]
            branches = Branches.find(branch_starts, self._token_mask(input_ids, attention_mask), shape)
            position_ids = branches.position_ids
            if self.base_model.takes_branches:
                kwargs["branch_ids"], use_cache = branches.ids, False
            else:
                input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds = (
                    None if tensor is None else branches.separate(tensor)
                    for tensor in (input_ids, branches.is_token.long(), token_type_ids, position_ids, inputs_embeds)
                )
                branches = None
        given = inputs_embeds if input_ids is None else input_ids
        n_rows = given.shape[1] if given.dim() - (input_ids is None) == 3 else 1
        if given.dim() - (input_ids is None) == 3:
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds = (
                None if tensor is None else tensor.flatten(0, 1)
                for tensor in (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
            )
        outputs = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state  # (batch * n_rows, seq, hidden)
        token_mask = self._token_mask(input_ids, attention_mask)
        if token_mask is not None:
            token_mask = token_mask[:, -hidden_states.shape[1] :]  # without the part of the cache
        sequences = None  # of packed rows: the index of the sequence that each token belongs to
        if branches is not None:
            n_rows, sequences = branch_starts.shape[1], branches
        elif position_ids is not None and attention_mask is None and cache is None:
            sequences = packed_sequences(position_ids)
            if sequences is not None:
                token_mask = None  # packed rows have no padding: the padding token is the unknown one in them
        logits = self._logits(hidden_states, token_mask, sequences, n_rows)

        losses = {}
        if labels is not None:
            if input_ids is None:
                labels = self._labels_of_last(labels, hidden_states)
            n_labels = self._labels_per_sequence(labels, sequences, n_rows)
            n_items = n_labels.sum() if num_items_in_batch is None else num_items_in_batch
            losses["loss"] = self._task_losses(logits, labels, smoothing).sum() / n_items
            if smoothing and not self.takes_smoothing:
                raise ValueError(
                    f"label smoothing spreads a label over the classes, and the labels of this {type(self).__name__} "
                    "are not classes: switch it off"
                )
            if self.config.lm_coef and input_ids is not None:
                losses["task_loss"] = losses["loss"]
                losses["lm_loss"] = self._lm_loss(hidden_states, input_ids, token_mask, sequences, n_labels / n_items)
                losses["loss"] = losses["task_loss"] + self.config.lm_coef * losses["lm_loss"]
        return GPT1TaskOutput(
            logits=self._read_out(logits),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
            **losses,
        )

    def _token_mask(self, input_ids, attention_mask) -> torch.Tensor | None:
        """Which positions hold a token, for want of a mask by the padding token."""
        if attention_mask is None and input_ids is not None and self.config.pad_token_id is not None:
            return input_ids != self.config.pad_token_id
        return attention_mask

    def _labels_of_last(self, labels: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """Labels for all states of embeddings that are longer than the text, as with PEFT's virtual tokens."""
        return labels

    @property
    def takes_smoothing(self) -> bool:
        """Whether a label is one of several classes, over which a share of it can be spread."""
        return True

    def _task_losses(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Loss of each label: cross-entropy over the last axis of the logits."""
        return nn.functional.cross_entropy(
            logits.float().flatten(0, -2), labels.flatten(), reduction="none", label_smoothing=smoothing
        )

    def _read_out(self, logits: torch.Tensor) -> torch.Tensor:
        """The output's logits."""
        return logits

    def _labels_per_sequence(self, labels: torch.Tensor, sequences, n_rows: int) -> torch.Tensor:
        """How many labels each sequence stands for, `(sequences,)`; the rows of an example share its label."""
        n_labels = (labels != -100).reshape(len(labels), -1).sum(-1)
        return n_labels.repeat_interleave(n_rows) / n_rows

    def _lm_loss(self, hidden_states, input_ids, token_mask, sequences, sequence_weights) -> torch.Tensor:
        """Sum over sequences of weight times mean token loss, under the tied softmax; padding does not count."""
        if isinstance(sequences, Branches):
            return self._branched_lm_loss(hidden_states, input_ids, sequences, sequence_weights)
        if sequences is None:
            sequences = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(input_ids)
        # (rows, seq - 1): whether a token is predicted from the one before it
        scored = sequences[:, 1:] == sequences[:, :-1]
        if token_mask is not None:
            scored = scored & token_mask[:, 1:].bool() & token_mask[:, :-1].bool()
        lengths = torch.zeros(len(sequence_weights), device=scored.device)
        lengths.index_add_(0, sequences[:, 1:].flatten(), scored.flatten().float())
        token_weights = (sequence_weights / lengths.clamp(min=1))[sequences[:, 1:]] * scored
        return self._weighted_lm_loss(hidden_states[:, :-1], input_ids[:, 1:], token_weights, scored)

    def _branched_lm_loss(self, hidden_states, input_ids, branches: Branches, row_weights) -> torch.Tensor:
        """As `_lm_loss`; a token of the prefix counts once for each row."""
        is_token, n_before = branches.is_token, (branches.lengths() - 1).clamp(min=1)
        token_weights = row_weights.view(branches.starts.shape) / n_before  # (batch, branches)
        token_weights = torch.cat([token_weights.sum(-1, keepdim=True), token_weights], -1).gather(1, branches.ids)
        # The state that predicts each token: of its left neighbour or, for a branch's first, of the prefix's last.
        before = (torch.arange(input_ids.shape[1], device=input_ids.device) - 1).expand_as(input_ids)
        before = before.scatter(1, branches.starts, (branches.starts[:, :1] - 1).expand_as(branches.starts))
        scored = (is_token & (before >= is_token.int().argmax(-1, keepdim=True)))[:, 1:]
        index = torch.arange(len(before), device=before.device)[:, None]
        states = hidden_states[index, before[:, 1:].clamp(min=0)]
        return self._weighted_lm_loss(states, input_ids[:, 1:], token_weights[:, 1:] * scored, scored)

    def _weighted_lm_loss(self, states, targets, token_weights, scored) -> torch.Tensor:
        """Weighted sum of the token losses, of shapes `(rows, seq, hidden)` and `(rows, seq)`."""
        parts = (states, targets, token_weights)
        if torch.compiler.is_compiling():  # the shapes within one graph cannot depend on the data
            states, targets, token_weights = (part.flatten(0, 1) for part in parts)
        else:
            states, targets, token_weights = (part[scored] for part in parts)
        return linear_cross_entropy(states, self.get_input_embeddings().weight, targets, token_weights)


class SequenceClassificationHead(TaskHead):
    """
    One label for a text or a pair, from the state of the extract token (paper eq. 3). Of input of shape
    `(batch, 2, seq)` the states of the two orders are added (paper §3.3, similarity); a model that was trained so
    refuses a single order, which it would answer otherwise (`config.both_orders`).

    Logits are of shape `(batch, num_labels)`; of packed rows, `(sequences, num_labels)`. Labels of shape `(batch,)`
    are class ids or, with `num_labels=1`, scores; labels of shape `(batch, num_labels)` are several labels a row, or
    several scores. Which it is says `config.problem_type`; where it is not set, one label is a score, whole numbers
    are classes and others several labels. A score outside the bins of `config.regression_bins` is a `ValueError`.
    """

    @property
    def n_outputs(self) -> int:
        return self.config.regression_bins or self.config.num_labels

    def _logits(self, hidden_states, token_mask, sequences, n_rows):
        if self.training:
            if self.config.both_orders != (n_rows == 2):
                self.config.both_orders = n_rows == 2
        elif n_rows == 1 and self.config.both_orders:
            raise ValueError(
                "this model reads a pair in both orders, as input of shape (batch, 2, seq), and was given one order: "
                'use its GPT1Processor, or pipeline("text-classification") after `import gpt1_hf`'
            )
        extract = extract_states(hidden_states, token_mask, sequences)
        return self.classifier(self.dropout(extract.unflatten(0, (-1, n_rows)).sum(1)))

    @property
    def takes_smoothing(self):
        is_class = self.config.problem_type in (None, "single_label_classification") and self.config.num_labels > 1
        return is_class and not self.config.regression_bins

    def _task_losses(self, logits, labels, smoothing=0.0):
        logits = logits.float()
        if self.config.regression_bins:
            last = self.config.regression_bins - 1
            if not torch.compiler.is_compiling() and ((labels < 0) | (labels > last)).any():
                raise ValueError(f"the labels hold a score outside 0 to {last}, the bins of config.regression_bins")
            # A score lies between two whole numbers, which share its mass (Tai et al., 2015, eq. 15).
            bins = torch.arange(last + 1, device=logits.device)
            targets = (1 - (labels.float().view(-1, 1) - bins).abs()).clamp(min=0)
            return nn.functional.cross_entropy(logits, targets, reduction="none")
        problem_type = self._problem_type(labels)
        is_class = problem_type == "single_label_classification"
        if labels.numel() != (len(logits) if is_class else logits.numel()):
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} and type {labels.dtype} do not fit logits of shape "
                f"{tuple(logits.shape)} ({problem_type}): give a class id for each row, as whole numbers, or a number "
                "for each logit, as floats"
            )
        if self.config.problem_type is None:
            self.config.problem_type = problem_type  # kept, as the library's heads do
        if is_class:
            return super()._task_losses(logits, labels, smoothing)
        loss = {
            "regression": nn.functional.mse_loss,
            "multi_label_classification": nn.functional.binary_cross_entropy_with_logits,
        }[problem_type]
        return loss(logits.view_as(labels), labels.float(), reduction="none")

    def _problem_type(self, labels: torch.Tensor) -> str:
        """The configuration's or, as in the library's own heads, what the labels show."""
        if self.config.num_labels == 1:
            return "regression"
        inferred = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        return self.config.problem_type or inferred

    def _read_out(self, logits):
        if not self.config.regression_bins:
            return logits
        bins = torch.arange(self.n_outputs, device=logits.device, dtype=torch.float32)
        return (logits.float().softmax(-1) @ bins).unsqueeze(-1)


class MultipleChoiceHead(TaskHead):
    """
    One score for each answer, from the state of its extract token, and a softmax over the answers (paper §3.3).

    Input is of shape `(batch, choices, seq)`, logits of shape `(batch, choices)`; labels of shape `(batch,)` are the
    indices of the right answers.
    """

    n_outputs = 1

    def _logits(self, hidden_states, token_mask, sequences, n_rows):
        extract = extract_states(hidden_states, token_mask, sequences).unflatten(0, (-1, n_rows))
        # One dropout mask for the choices of a question, as in the released code (train.py, `clf`).
        return self.classifier(extract * self.dropout(torch.ones_like(extract[:, :1]))).squeeze(-1)


class TokenClassificationHead(TaskHead):
    """
    One label for each token. Not in the paper; a token's state has seen the tokens to its left only.

    Logits are of shape `(batch, seq, num_labels)`, labels of shape `(batch, seq)`; of embeddings, labels may be of the
    last ones only.
    """

    def _logits(self, hidden_states, token_mask, sequences, n_rows):
        return self.classifier(self.dropout(hidden_states))

    def _labels_of_last(self, labels, hidden_states):
        n_before = hidden_states.shape[1] - labels.shape[1]
        return nn.functional.pad(labels, (max(n_before, 0), 0), value=-100)

    def _labels_per_sequence(self, labels, sequences, n_rows):
        labelled = (labels != -100).float()
        if sequences is None:
            return labelled.sum(-1)
        return labelled.new_zeros(int(sequences.max()) + 1).index_add(0, sequences.flatten(), labelled.flatten())


class GPT1ForSequenceClassification(SequenceClassificationHead, GPT1PreTrainedModel):
    """GPT-1 for the classification, entailment and similarity formats."""

    base_class = GPT1Model


class GPT1ForMultipleChoice(MultipleChoiceHead, GPT1PreTrainedModel):
    """GPT-1 for the multiple-choice format."""

    base_class = GPT1Model


class GPT1ForTokenClassification(TokenClassificationHead, GPT1PreTrainedModel):
    """GPT-1 with a label for each token."""

    base_class = GPT1Model


# What `from_pretrained` does to a checkpoint in the layout of transformers' OpenAIGPT, whose fused Conv1D weights are
# stored (in, out). It is registered under the base class's name, since a config loaded from such a folder names
# another model type, and with `overwrite`, since this file may be loaded twice: from the package and as remote code.
register_checkpoint_conversion_mapping(
    "GPT1Model",
    [
        WeightConverter(
            "attn.c_attn.weight",
            ["attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"],
            [Transpose(0, 1), Chunk(dim=0)],
        ),
        WeightConverter(
            "attn.c_attn.bias", ["attn.q_proj.bias", "attn.k_proj.bias", "attn.v_proj.bias"], [Chunk(dim=0)]
        ),
        WeightConverter("attn.c_proj.weight", "attn.o_proj.weight", [Transpose(0, 1)]),
        WeightRenaming("attn.c_proj.bias", "attn.o_proj.bias"),
        WeightConverter("mlp.c_fc.weight", "mlp.up_proj.weight", [Transpose(0, 1)]),
        WeightRenaming("mlp.c_fc.bias", "mlp.up_proj.bias"),
        WeightConverter("mlp.c_proj.weight", "mlp.down_proj.weight", [Transpose(0, 1)]),
        WeightRenaming("mlp.c_proj.bias", "mlp.down_proj.bias"),
    ],
    overwrite=True,
)

# By this list `Trainer` knows whose labels are to be shifted where it computes the loss itself, for
# `label_smoothing_factor`; classes that are registered with `AutoModelForCausalLM` are not in it.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["gpt1"] = "GPT1ForCausalLM"

# Arguments of the heads, and those that any model hands through to its blocks and attention function.
ARGUMENTS_OF_HEADS = frozenset(
    {"labels", "logits_to_keep", "skip_logits", "smoothing", "num_items_in_batch", "branch_starts"}
)
PASSED_THROUGH = frozenset(TransformersKwargs.__annotations__) | {
    "shift_labels",  # of a language model's loss
    "return_dict",
    "attention_instances",  # vLLM's
}

# The one list of what the family answers to; the package registers it, `config.json` carries it as `auto_map`.
AUTO_CLASSES: dict[str, type[GPT1PreTrainedModel]] = {
    "AutoModel": GPT1Model,
    "AutoModelForCausalLM": GPT1ForCausalLM,
    "AutoModelForMultipleChoice": GPT1ForMultipleChoice,
    "AutoModelForSequenceClassification": GPT1ForSequenceClassification,
    "AutoModelForTokenClassification": GPT1ForTokenClassification,
}

__all__ = [
    "GPT1ForCausalLM",
    "GPT1ForMultipleChoice",
    "GPT1ForSequenceClassification",
    "GPT1ForTokenClassification",
    "GPT1Model",
    "GPT1PreTrainedModel",
    "GPT1TaskOutput",
]
