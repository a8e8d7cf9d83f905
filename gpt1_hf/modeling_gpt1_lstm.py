"""The LSTM that the paper compares GPT-1 with (Radford et al., 2018, §5: "a single layer 2048 unit LSTM").

Everything else equals GPT-1, so every analysis runs on it unchanged: token ids as input, states of the embeddings'
width as output, a softmax tied to the embeddings, the same heads and outputs. A block is an `nn.LSTM` (cuDNN on a GPU)
and a projection to the embeddings' width. The LSTM skips padding on either side, and reads each sequence of a packed
row separately. Comments give shapes by the names of their axes: `(batch, seq, hidden)`.

This file travels to the Hub beside every checkpoint. It imports nothing from the package but files that travel too.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence
from transformers import GenerationMixin
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
from .modeling_gpt1_cpu import linear
from .modeling_gpt1_heads import (
    CACHE,
    CausalLMHead,
    GPT1FamilyPreTrainedModel,
    MultipleChoiceHead,
    SequenceClassificationHead,
    TokenClassificationHead,
    check_keywords,
    one_cache,
    without_checkpointing,
)


class GPT1LSTMCacheLayer(CacheLayerMixin):
    """
    State of one LSTM layer after the last token, stored as keys and values: the output h as `keys` and the memory
    cells c as `values`, both of shape `(batch, lstm)`.
    """

    # `DynamicCache(config=...)`, and so `generate`, finds the class by this name (see the config's `layer_types`).
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
        return -1  # unlimited

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cumulative_length + query_length, 0


# The state's size does not depend on the length of the text, so the same class is also the static cache.
STATIC_LAYER_TYPE_MAPPING[GPT1LSTMCacheLayer._layer_type] = GPT1LSTMCacheLayer


class Sequences(NamedTuple):
    """
    Sequences of a batch with padding or packed rows, in reading order, row by row.

    Args:
        is_token (`torch.BoolTensor` of shape `(batch, seq)`):
            Whether a position holds a token.
        lengths (`list[int]`):
            Number of tokens of each sequence.
        rows (`torch.LongTensor` of shape `(n_sequences,)`):
            Row of each sequence.
        last (`torch.BoolTensor` of shape `(n_sequences,)`):
            Whether a sequence is the last of its row. Its state is the one that the row keeps.
    """

    is_token: torch.Tensor
    lengths: list[int]
    rows: torch.Tensor
    last: torch.Tensor


def find_sequences(
    is_token: torch.Tensor | None, position_ids: torch.Tensor | None, hidden_states: torch.Tensor
) -> Sequences | None:
    """
    Find the sequences of a batch.

    Args:
        is_token (`torch.BoolTensor` of shape `(batch, seq)`, *optional*):
            Whether a position holds a token; `None` if all do.
        position_ids (`torch.LongTensor` of shape `(batch or 1, seq)`, *optional*):
            Positions, which mark the sequences of packed rows: a position that is not its left neighbour's plus one
            starts a new sequence (as in transformers' `find_packed_sequence_indices`).
        hidden_states (`torch.Tensor` of shape `(batch, seq, hidden)`):
            States of the batch, for its shape and device.

    Returns:
        [`Sequences`], or `None` if each row is one sequence without padding.
    """
    restarts = None if position_ids is None else position_ids.diff(dim=-1) != 1  # (batch or 1, seq - 1)
    if (is_token is None or is_token.all()) and (restarts is None or not restarts.any()):
        return None
    if is_token is None:
        is_token = hidden_states.new_ones(hidden_states.shape[:2], dtype=torch.bool)
    starts = is_token & (is_token.cumsum(-1) == 1)  # (batch, seq), each row's first token
    if restarts is not None:
        starts[:, 1:] |= is_token[:, 1:] & restarts
    first = starts[is_token].nonzero().squeeze(-1)  # (n_sequences,), index among the tokens
    lengths = first.diff(append=is_token.sum().view(1)).tolist()
    rows = starts.nonzero()[:, 0]
    return Sequences(is_token, lengths, rows, last=rows.diff(append=rows.new_full((1,), -1)) != 0)


class GPT1LSTMBlock(GradientCheckpointingLayer):
    """An LSTM and a projection of its output to the embeddings' width."""

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
            output, state = self._read_sequences(hidden_states, sequences, state)
        if cache is not None:
            h, c = state
            cache.update(h.squeeze(0), c.squeeze(0), self.layer_idx, hidden_states.shape[1])
        return linear(self.proj, self.dropout(output))

    def _past_state(self, hidden_states, cache: Cache | None) -> tuple[torch.Tensor, torch.Tensor]:
        """State before the first token, h and c of shape `(1, batch, lstm)`: from the cache, or zero."""
        past = None if cache is None else cache.layers[self.layer_idx]
        if past is None or not past.get_seq_length():
            zeros = hidden_states.new_zeros(1, hidden_states.shape[0], self.lstm.hidden_size)
            return zeros, zeros
        # Under autocast, the state's dtype may differ from that of the embeddings.
        return past.keys.unsqueeze(0).to(hidden_states.dtype), past.values.unsqueeze(0).to(hidden_states.dtype)

    def _read_sequences(self, hidden_states, sequences: Sequences, state):
        """As `self.lstm`, but reads each sequence separately and skips padding."""
        is_token, lengths, rows, last = sequences
        result = hidden_states.new_zeros(*hidden_states.shape[:2], self.lstm.hidden_size)
        if not lengths:
            return result, state
        # All sequences of a row start from the row's state. Rows with several sequences have no cache: it is zero.
        packed = pack_sequence(hidden_states[is_token].split(lengths), enforce_sorted=False)
        output, ends = self.lstm(packed, tuple(part[:, rows] for part in state))
        result = result.to(output.data.dtype)
        result[is_token] = torch.cat(unpack_sequence(output))
        # Rows that contain only padding keep their state.
        state = tuple(
            part.to(end.dtype).index_copy(1, rows[last], end[:, last]) for part, end in zip(state, ends, strict=True)
        )
        return result, state


class GPT1LSTMPreTrainedModel(GPT1FamilyPreTrainedModel):
    """Features of every LSTM class, and how their weights are initialized."""

    config: GPT1LSTMConfig
    base_model_prefix = "model"
    _is_stateful = True
    _no_split_modules = ["GPT1LSTMBlock"]
    _can_record_outputs = {"hidden_states": GPT1LSTMBlock}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, nn.LSTM):
            for name, parameter in module.named_parameters():
                if name.startswith("weight"):
                    init.normal_(parameter, mean=0.0, std=self.config.initializer_range)
                elif name.startswith("bias_ih"):
                    # The order of the gates is input, forget, cell, output. A forget gate that starts open lets
                    # gradients through from the first update on (Jozefowicz et al., 2015, §3.1.2).
                    size = module.hidden_size
                    open_forget_gate = torch.zeros_like(parameter)
                    open_forget_gate[size : 2 * size] = 1.0
                    init.copy_(parameter, open_forget_gate)


class GPT1LSTMModel(GPT1LSTMPreTrainedModel):
    """The LSTM without a head. It maps token ids to the last block's projected states."""

    def __init__(self, config: GPT1LSTMConfig):
        super().__init__(config)
        self.tokens_embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(GPT1LSTMBlock(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self.post_init()

    @property
    def takes_branches(self) -> bool:
        """False: a branch would need the state after its prefix, but `nn.LSTM` returns only the state after a row."""
        return False

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
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Token ids; exactly one of `input_ids` and `inputs_embeds` is given.
            attention_mask (`torch.Tensor` of shape `(batch, past + seq)`, *optional*):
                1 for tokens, 0 for padding, which the LSTM skips.
            token_type_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                Ids whose *token* embeddings are added to each position, as in GPT-1.
            position_ids (`torch.LongTensor` of shape `(batch, seq)`, *optional*):
                The LSTM uses positions only to find packed sequences. If there is no mask and no cache, a position
                that is not its left neighbour's plus one starts a new sequence, with a zero state.
            past_key_values, cache (`Cache`, *optional*):
                State after earlier tokens, created with `DynamicCache(config=model.config)`. The two are names of the
                same argument.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, seq, hidden)`, *optional*):
                Token embeddings instead of ids.
            use_cache (`bool`, *optional*):
                Whether to return the cache; defaults to the config's value.

        Returns:
            `BaseModelOutputWithPast` with `last_hidden_state` of shape `(batch, seq, hidden)`, undefined at padding.

        Raises:
            ValueError: if both or neither of the inputs, or both names of the cache, are passed; if the mask is not
                two-dimensional; or if the cache belongs to another model or holds tokens during activation
                checkpointing.
            TypeError: if an unknown argument resembles a known one or belongs to a head.
        """
        check_keywords(self, kwargs)
        cache = one_cache(cache, past_key_values)
        hidden_states = self._embed(input_ids, inputs_embeds)
        if attention_mask is not None and attention_mask.dim() != 2:
            raise ValueError(
                f"attention_mask has the shape {tuple(attention_mask.shape)}: an LSTM needs the shape (batch, seq)"
            )
        is_packable = attention_mask is None and cache is None
        if cache is not None:
            self._check_cache(cache)
        elif use_cache:
            cache = DynamicCache(config=self.config)
        cache = without_checkpointing(self, cache)

        seq_len = hidden_states.shape[1]
        is_token = None if attention_mask is None else attention_mask[:, -seq_len:].to(hidden_states.device).bool()
        sequences = find_sequences(is_token, position_ids if is_packable else None, hidden_states)

        if token_type_ids is not None:
            hidden_states = hidden_states + self.tokens_embed(token_type_ids)
        hidden_states = self.drop(hidden_states)
        for block in self.h:
            hidden_states = block(hidden_states, sequences=sequences, cache=cache)
        return BaseModelOutputWithPast(last_hidden_state=hidden_states, **{CACHE: cache})

    def _check_cache(self, cache: Cache):
        # Compared by name, because there are two such classes if this file is also loaded as remote code.
        names = [type(layer).__name__ for layer in cache.layers]
        if names != [GPT1LSTMCacheLayer.__name__] * len(self.h):
            raise ValueError("the cache belongs to another model: create it with DynamicCache(config=model.config)")


class GPT1LSTMForCausalLM(CausalLMHead, GPT1LSTMPreTrainedModel, GenerationMixin):
    """The LSTM with the language-model head, whose weights are tied to the token embeddings."""

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
    """The LSTM for token classification, which is not in the paper."""

    base_class = GPT1LSTMModel


# `Trainer` shifts the labels of these classes, see `modeling_gpt1.py`.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["gpt1_lstm"] = "GPT1LSTMForCausalLM"

__all__ = [
    "GPT1LSTMForCausalLM",
    "GPT1LSTMForMultipleChoice",
    "GPT1LSTMForSequenceClassification",
    "GPT1LSTMForTokenClassification",
    "GPT1LSTMModel",
    "GPT1LSTMPreTrainedModel",
]
