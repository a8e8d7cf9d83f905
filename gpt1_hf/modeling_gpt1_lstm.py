"""The LSTM that the paper compares GPT-1 with (Radford et al., 2018, §5: "a single layer 2048 unit LSTM").

Everything else is as in GPT-1, so that every analysis runs on it unchanged: token ids in, states of the embeddings'
width out, a softmax tied to the embeddings, the same heads and outputs. An LSTM layer is `nn.LSTM` (cuDNN on a GPU),
its output projected to the embeddings' width. Padding on either side is cut out before the LSTM reads a row, and the
sequences of a packed row are read apart. Shapes in comments name their axes: `(batch, seq, hidden)`.

This file travels to the Hub beside every checkpoint; it imports nothing of the package but its siblings.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import STATIC_LAYER_TYPE_MAPPING, Cache, CacheLayerMixin, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_gpt1_lstm import GPT1LSTMConfig
from .modeling_gpt1 import (
    CACHE,
    CausalLMHead,
    MultipleChoiceHead,
    SequenceClassificationHead,
    TokenClassificationHead,
    check_keywords,
    one_cache,
    without_checkpointing,
)


class GPT1LSTMCacheLayer(CacheLayerMixin):
    """
    The state of one LSTM layer after the last token, in the place of keys and values: the output h as `keys`, the
    memory cells c as `values`, both `(batch, lstm)`.
    """

    # Under this name `DynamicCache(config=...)`, and so `generate`, finds the class (configuration: `layer_types`).
    _layer_type = "gpt1_lstm"

    def __init__(self, **kwargs):
        super().__init__()
        self.cumulative_length = 0  # positions read so far, padding included

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, n_positions: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states, value_states
        self.cumulative_length += n_positions
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.cumulative_length

    def get_max_length(self) -> int:
        return -1  # none

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cumulative_length + query_length, 0


# A state has one size however long the text is, so that it serves as a static cache too.
STATIC_LAYER_TYPE_MAPPING[GPT1LSTMCacheLayer._layer_type] = GPT1LSTMCacheLayer


class Sequences(NamedTuple):
    """
    Where the sequences of a batch lie that has padding or packed rows. In reading order, row by row.

    Args:
        real (`torch.BoolTensor` of shape `(batch, seq)`):
            Which positions hold a token.
        lengths (`list[int]`):
            Number of tokens of each sequence.
        rows (`torch.LongTensor` of shape `(n_sequences,)`):
            Row of the batch that each lies in.
        last (`torch.BoolTensor` of shape `(n_sequences,)`):
            Whether each is the last of its row, whose state the row goes on from.
    """

    real: torch.Tensor
    lengths: list[int]
    rows: torch.Tensor
    last: torch.Tensor


def find_sequences(
    real: torch.Tensor | None, position_ids: torch.Tensor | None, shape: torch.Size
) -> Sequences | None:
    """
    Find the sequences of a batch.

    Args:
        real (`torch.BoolTensor` of shape `(batch, seq)`, *optional*):
            Which positions hold a token; `None` if all do.
        position_ids (`torch.LongTensor` of shape `(batch or 1, seq)`, *optional*):
            Positions, to find the sequences of packed rows by: one that does not follow its left neighbour's starts a
            new sequence (as transformers' `find_packed_sequence_indices`).
        shape (`torch.Size`):
            `(batch, seq)`.

    Returns:
        [`Sequences`], or `None` if each row is one sequence from end to end.
    """
    restarts = None if position_ids is None else position_ids.diff(dim=-1) != 1  # (batch or 1, seq - 1)
    if (real is None or real.all()) and (restarts is None or not restarts.any()):
        return None
    if real is None:
        real = torch.ones(shape, dtype=torch.bool, device=position_ids.device)
    starts = real & (real.cumsum(-1) == 1)  # (batch, seq), each row's first token
    if restarts is not None:
        starts[:, 1:] |= real[:, 1:] & restarts
    first = starts[real].nonzero().squeeze(-1)  # (n_sequences,), index among the tokens
    lengths = first.diff(append=real.sum().view(1)).tolist()
    rows = starts.nonzero()[:, 0]
    return Sequences(real, lengths, rows, last=rows.diff(append=rows.new_full((1,), -1)) != 0)


class GPT1LSTMBlock(GradientCheckpointingLayer):
    """An LSTM, and a projection of its output to the embeddings' width."""

    def __init__(self, config: GPT1LSTMConfig, layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.lstm = nn.LSTM(config.hidden_size, config.lstm_size, batch_first=True)
        self.dropout = nn.Dropout(config.resid_pdrop)
        self.proj = nn.Linear(config.lstm_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,  # (batch, seq, hidden)
        sequences: Sequences | None = None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        state = self._past_state(hidden_states, cache)
        if sequences is None:
            output, state = self.lstm(hidden_states, state)  # (batch, seq, lstm); two of (1, batch, lstm)
        else:
            output, state = self._read_apart(hidden_states, sequences, state)
        if cache is not None:
            h, c = state
            cache.update(h.squeeze(0), c.squeeze(0), self.layer_idx, hidden_states.shape[1])
        return self.proj(self.dropout(output))

    def _past_state(self, hidden_states, cache: Cache | None) -> tuple[torch.Tensor, torch.Tensor]:
        """State before the first token, twice `(1, batch, lstm)`: the cache's, or zero."""
        past = None if cache is None else cache.layers[self.layer_idx]
        if past is None or not past.get_seq_length():
            zeros = hidden_states.new_zeros(1, hidden_states.shape[0], self.lstm.hidden_size)
            return zeros, zeros
        # Under autocast the state may have come out in another type than the embeddings'.
        return past.keys.unsqueeze(0).to(hidden_states.dtype), past.values.unsqueeze(0).to(hidden_states.dtype)

    def _read_apart(self, hidden_states, sequences: Sequences, state):
        """As `self.lstm`, reading each of the sequences from its first token to its last, and nothing else."""
        real, lengths, rows, last = sequences
        result = hidden_states.new_zeros(*hidden_states.shape[:2], self.lstm.hidden_size)
        if not lengths:
            return result, state
        # The first sequence of a row starts from the row's own state; others come up only where that is zero.
        packed = pack_sequence(hidden_states[real].split(lengths), enforce_sorted=False)
        output, ends = self.lstm(packed, tuple(part[:, rows] for part in state))
        result = result.to(output.data.dtype)
        result[real] = torch.cat(unpack_sequence(output))
        # Rows of nothing but padding keep the state they had.
        state = tuple(
            part.to(end.dtype).index_copy(1, rows[last], end[:, last]) for part, end in zip(state, ends, strict=True)
        )
        return result, state


class GPT1LSTMPreTrainedModel(PreTrainedModel):
    """What every class of the LSTM shares: which hooks it supports, how weights are drawn."""

    config: GPT1LSTMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _is_stateful = True
    _no_split_modules = ["GPT1LSTMBlock"]
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _can_record_outputs = {"hidden_states": GPT1LSTMBlock}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, nn.LSTM):
            for name, parameter in module.named_parameters():
                if name.startswith("weight"):
                    init.normal_(parameter, mean=0.0, std=self.config.initializer_range)
                elif name.startswith("bias_ih"):
                    # Gates in the order input, forget, cell, output. A forget gate that starts open lets gradients
                    # through from the first update on (Jozefowicz et al., 2015, §3.1.2).
                    size = module.hidden_size
                    open_forget_gate = torch.zeros_like(parameter)
                    open_forget_gate[size : 2 * size] = 1.0
                    init.copy_(parameter, open_forget_gate)
        # The base class reads 0.0 as "unset" and draws with 0.02 (modeling_utils.py, `initializer_range or 0.02`).
        elif self.config.initializer_range == 0.0 and isinstance(module, nn.Linear | nn.Embedding):
            init.zeros_(module.weight)


class GPT1LSTMModel(GPT1LSTMPreTrainedModel):
    """The LSTM without a head: token ids in, the projected states out."""

    def __init__(self, config: GPT1LSTMConfig):
        super().__init__(config)
        self.tokens_embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(GPT1LSTMBlock(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.tokens_embed

    def set_input_embeddings(self, value: nn.Embedding):
        self.tokens_embed = value

    @property
    def takes_branches(self) -> bool:
        """A branch would have to go on from the prefix's last state, which `nn.LSTM` gives of whole rows only."""
        return False

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
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Token ids; exactly one of `input_ids` and `inputs_embeds` is given.
            attention_mask (`torch.Tensor` of shape `(batch, past + seq)`, *optional*):
                1 for tokens, 0 for padding, which the LSTM does not read.
            token_type_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Rows of the *token* embedding that are added to each position, as in GPT-1.
            position_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                An LSTM needs none. Without mask and cache, a position that does not follow its left neighbour's starts
                a new sequence of a packed row, read from a state of zero.
            past_key_values, cache (`Cache`, *optional*):
                State after earlier tokens, made by `DynamicCache(config=model.config)`: two names of one argument.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, seq, hidden)`, *optional*):
                Token embeddings in place of ids.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`; defaults to the config's.

        Returns:
            `BaseModelOutputWithPast` with `last_hidden_state` of shape `(batch, seq, hidden)`, meaningless at padding.

        Raises:
            ValueError: if both or neither of the inputs or both names of the cache are given, the mask is not
            two-dimensional, or the cache is another model's, or holds tokens while blocks are computed twice
            (activation checkpointing).
            TypeError: if an argument is unknown and resembles a known one, or is one of the heads'.
        """
        check_keywords(self, kwargs)
        cache = one_cache(cache, past_key_values)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if attention_mask is not None and attention_mask.dim() != 2:
            raise ValueError(
                f"attention_mask has the shape {tuple(attention_mask.shape)}: an LSTM takes one of shape (batch, seq)"
            )
        if inputs_embeds is None:
            inputs_embeds = self.tokens_embed(input_ids)
        is_packable = attention_mask is None and cache is None
        if cache is not None:
            self._check_cache(cache)
        elif use_cache:
            cache = DynamicCache(config=self.config)
        cache = without_checkpointing(self, cache)

        seq_len = inputs_embeds.shape[1]
        real = None if attention_mask is None else attention_mask[:, -seq_len:].to(inputs_embeds.device).bool()
        sequences = find_sequences(real, position_ids if is_packable else None, inputs_embeds.shape[:2])

        hidden_states = inputs_embeds
        if token_type_ids is not None:
            hidden_states = hidden_states + self.tokens_embed(token_type_ids)
        hidden_states = self.drop(hidden_states)
        for block in self.h:
            hidden_states = block(hidden_states, sequences=sequences, cache=cache)
        return BaseModelOutputWithPast(last_hidden_state=hidden_states, **{CACHE: cache})

    def _check_cache(self, cache: Cache):
        # By name: in a process that also loaded this file as remote code, there are two such classes.
        kinds = [type(layer).__name__ for layer in cache.layers]
        if kinds != [GPT1LSTMCacheLayer.__name__] * len(self.h):
            raise ValueError("the cache is not this model's: make it with DynamicCache(config=model.config)")


class GPT1LSTMForCausalLM(CausalLMHead, GPT1LSTMPreTrainedModel, GenerationMixin):
    """The LSTM with the language-model head, its weights tied to the token embeddings."""

    base_class = GPT1LSTMModel
    _tied_weights_keys = {"lm_head.weight": "model.tokens_embed.weight"}
    _fsdp_plan = {"lm_head": "keep_full_weight"}


class GPT1LSTMForSequenceClassification(SequenceClassificationHead, GPT1LSTMPreTrainedModel):
    """The LSTM for the classification, entailment and similarity formats."""

    base_class = GPT1LSTMModel


class GPT1LSTMForMultipleChoice(MultipleChoiceHead, GPT1LSTMPreTrainedModel):
    """The LSTM for the multiple-choice format."""

    base_class = GPT1LSTMModel


class GPT1LSTMForTokenClassification(TokenClassificationHead, GPT1LSTMPreTrainedModel):
    """The LSTM with a label for each token."""

    base_class = GPT1LSTMModel


# As of GPT-1: the language models whose labels `Trainer` has to shift.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["gpt1_lstm"] = "GPT1LSTMForCausalLM"

# What the LSTM answers to; the package registers it, `config.json` carries it as `auto_map`.
AUTO_CLASSES: dict[str, type[GPT1LSTMPreTrainedModel]] = {
    "AutoModel": GPT1LSTMModel,
    "AutoModelForCausalLM": GPT1LSTMForCausalLM,
    "AutoModelForMultipleChoice": GPT1LSTMForMultipleChoice,
    "AutoModelForSequenceClassification": GPT1LSTMForSequenceClassification,
    "AutoModelForTokenClassification": GPT1LSTMForTokenClassification,
}

__all__ = [
    "GPT1LSTMForCausalLM",
    "GPT1LSTMForMultipleChoice",
    "GPT1LSTMForSequenceClassification",
    "GPT1LSTMForTokenClassification",
    "GPT1LSTMModel",
    "GPT1LSTMPreTrainedModel",
]
