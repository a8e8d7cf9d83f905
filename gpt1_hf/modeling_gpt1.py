"""GPT-1 (Radford et al., 2018): a decoder-only transformer with layer norm after each residual sum, and its heads.

Written on transformers' own hooks: the attention interface (eager, sdpa, flash, flex), the mask API (padding, caches
and packed rows), `GradientCheckpointingLayer`, output capturing and `loss_function`. It differs from transformers'
OpenAIGPT in having a key/value cache, and separate `nn.Linear` projections where that has fused `Conv1D` ones;
checkpoints of the latter load through the weight mapping at the end of the file. Shapes in comments name their axes:
`(batch, seq, hidden)`.

This file travels to the Hub beside every checkpoint; it imports nothing of the package but its siblings.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import Chunk, GenerationMixin, PreTrainedModel, WeightConverter
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Transpose, WeightRenaming
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_gpt1 import GPT1Config


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
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]  # (batch, seq)
        head_shape = (*input_shape, -1, self.head_dim)
        query = self.q_proj(hidden_states).view(head_shape).transpose(1, 2)  # (batch, heads, seq, head_dim)
        key = self.k_proj(hidden_states).view(head_shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(head_shape).transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)

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
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attention, _ = self.attn(
            hidden_states, attention_mask=attention_mask, past_key_values=past_key_values, **kwargs
        )
        hidden_states = self.ln_1(hidden_states + self.dropout(attention))
        return self.ln_2(hidden_states + self.dropout(self.mlp(hidden_states)))


class GPT1PreTrainedModel(PreTrainedModel):
    """What every GPT-1 class shares: which hooks it supports, how weights are drawn, how they are saved."""

    config: GPT1Config
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GPT1Block"]
    _skip_keys_device_placement = ["past_key_values"]
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
        use_cache: bool | None = None,
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
                Positions, counted on from the cache by default. Without mask and cache, a position that does not
                follow its left neighbour's starts a new sequence of a packed row, which sees nothing before it.
            past_key_values (`Cache`, *optional*):
                Keys and values of earlier tokens.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, seq, hidden)`, *optional*):
                Token embeddings in place of ids.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`; defaults to the config's.

        Returns:
            `BaseModelOutputWithPast` with `last_hidden_state` of shape `(batch, seq, hidden)`.

        Raises:
            ValueError: if a position lies beyond `max_position_embeddings`, or both or neither of the inputs are
            given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.tokens_embed(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)

        seq_len = inputs_embeds.shape[1]
        if position_ids is None:
            past = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(seq_len, device=inputs_embeds.device) + past).unsqueeze(0)  # (1, seq)
            n_positions = past + seq_len
        else:
            n_positions = position_ids.max() + 1
        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )

        hidden_states = inputs_embeds
        if token_type_ids is not None:
            hidden_states = hidden_states + self.tokens_embed(token_type_ids)
        if self.config.position_embedding_type == "learned":
            self._check_positions(n_positions)
            hidden_states = hidden_states + self.positions_embed(position_ids)
        elif self.config.position_embedding_type == "sinusoidal":
            hidden_states = hidden_states + sinusoidal_positions(
                position_ids, self.config.hidden_size, hidden_states.dtype
            )
        hidden_states = self.drop(hidden_states)

        for block in self.h:
            hidden_states = block(
                hidden_states,
                attention_mask=causal_mask,
                past_key_values=past_key_values,
                position_ids=position_ids,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=hidden_states, past_key_values=past_key_values)

    def _check_positions(self, n_positions: int | torch.Tensor):
        # An index error of `nn.Embedding` names nothing, and on a GPU it ends the process.
        if not torch.compiler.is_compiling() and n_positions > self.config.max_position_embeddings:
            raise ValueError(
                f"the input needs {int(n_positions)} positions, but this model has "
                f"{self.config.max_position_embeddings} (max_position_embeddings); shorten the text, or ask for fewer "
                "new tokens"
            )


class GPT1ForCausalLM(GPT1PreTrainedModel, GenerationMixin):
    """GPT-1 with the language-model head, its weights tied to the token embeddings (paper eq. 1–2)."""

    _tied_weights_keys = {"lm_head.weight": "transformer.tokens_embed.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: GPT1Config):
        super().__init__(config)
        self.transformer = GPT1Model(config)
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
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        r"""
        Args (the others as in [`GPT1Model.forward`]):
            labels (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Target ids, normally `input_ids` themselves: position i is scored by the logits at i − 1. −100 is
                ignored.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Compute the logits of the last so many positions only; 0 means all.

        Returns:
            `CausalLMOutputWithPast` with `logits` of shape `(batch, seq, vocab)` and, given labels, the mean `loss` in
            nats per target token.
        """
        outputs: BaseModelOutputWithPast = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


@dataclass
class GPT1SequenceClassifierOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, *optional*):
            `task_loss + lm_coef * lm_loss` (paper eq. 5), returned when labels are given.
        logits (`torch.FloatTensor` of shape `(batch, num_labels)`):
            Scores before the softmax.
        past_key_values (`Cache`, *optional*):
            Returned when `use_cache` is set.
        hidden_states (`tuple` of `torch.FloatTensor`, *optional*):
            Returned when `output_hidden_states` is set: the embeddings and each block's states.
        attentions (`tuple` of `torch.FloatTensor`, *optional*):
            Returned when `output_attentions` is set.
        task_loss (`torch.FloatTensor`, *optional*):
            The supervised part of `loss` (paper eq. 4), returned when the auxiliary objective is on.
        lm_loss (`torch.FloatTensor`, *optional*):
            The language-model part: the mean over examples of each sequence's mean token loss, in nats.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    task_loss: torch.FloatTensor | None = None
    lm_loss: torch.FloatTensor | None = None


class GPT1ForSequenceClassification(GPT1PreTrainedModel):
    """GPT-1 with a linear head on the state of the extract token, the last one of each row (paper eq. 3)."""

    def __init__(self, config: GPT1Config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = GPT1Model(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        # The name under which PEFT looks for a head that is to be trained and saved beside an adapter.
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
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
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GPT1SequenceClassifierOutput:
        r"""
        Args (the others as in [`GPT1Model.forward`]):
            labels (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Class ids, or scores if `num_labels` is 1.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Number of examples that the loss is averaged over, given by Trainer when one update spans several
                batches or processes; defaults to this batch's own.

        Returns:
            [`GPT1SequenceClassifierOutput`].
        """
        outputs: BaseModelOutputWithPast = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        rows = torch.arange(hidden_states.shape[0], device=hidden_states.device)
        extract = hidden_states[rows, self._extract_positions(input_ids, attention_mask, hidden_states)]
        logits = self.classifier(self.dropout(extract))  # (batch, num_labels)

        loss = task_loss = lm_loss = None
        if labels is not None:
            n_examples = labels.shape[0] if num_items_in_batch is None else num_items_in_batch
            loss = self._task_losses(logits, labels).sum() / n_examples
            if self.config.lm_coef and input_ids is not None:
                task_loss = loss
                lm_loss = self._lm_losses(hidden_states, input_ids, attention_mask).sum() / n_examples
                loss = task_loss + self.config.lm_coef * lm_loss
        return GPT1SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            task_loss=task_loss,
            lm_loss=lm_loss,
        )

    def _token_mask(self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
        """1 for tokens and 0 for padding, `(batch, seq)`; `None` if every position counts."""
        if attention_mask is not None:
            return attention_mask
        if input_ids is not None and self.config.pad_token_id is not None:
            return (input_ids != self.config.pad_token_id).long()
        return None

    def _extract_positions(self, input_ids, attention_mask, hidden_states: torch.Tensor) -> torch.Tensor:
        """Index of each row's last token, `(batch,)`, for padding on either side."""
        batch, seq_len = hidden_states.shape[:2]
        mask = self._token_mask(input_ids, attention_mask)
        positions = torch.arange(seq_len, device=hidden_states.device)
        if mask is None:
            return positions[-1].expand(batch)
        return (mask[:, -seq_len:].to(positions.dtype) * positions).argmax(-1)

    def _task_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of each example, `(batch,)`: cross-entropy over the classes, or squared error for one score."""
        if self.num_labels == 1:
            return nn.functional.mse_loss(logits.float().squeeze(-1), labels.float().view(-1), reduction="none")
        return nn.functional.cross_entropy(logits.float(), labels.view(-1), reduction="none")

    def _lm_losses(self, hidden_states, input_ids, attention_mask) -> torch.Tensor:
        """Mean token loss of each row under the tied language-model softmax, `(batch,)`; padding does not count."""
        token_mask = self._token_mask(input_ids, attention_mask)
        targets = input_ids[:, 1:]
        scored = torch.ones_like(targets) if token_mask is None else token_mask[:, 1:] * token_mask[:, :-1]
        logits = nn.functional.linear(hidden_states[:, :-1], self.transformer.tokens_embed.weight)
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
        ).view_as(targets)
        return (losses * scored).sum(-1) / scored.sum(-1).clamp(min=1)


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

# The one list of what the family answers to; the package registers it, `config.json` carries it as `auto_map`.
AUTO_CLASSES: dict[str, type[GPT1PreTrainedModel]] = {
    "AutoModel": GPT1Model,
    "AutoModelForCausalLM": GPT1ForCausalLM,
    "AutoModelForSequenceClassification": GPT1ForSequenceClassification,
}

__all__ = [
    "GPT1ForCausalLM",
    "GPT1ForSequenceClassification",
    "GPT1Model",
    "GPT1PreTrainedModel",
    "GPT1SequenceClassifierOutput",
]
