"""What GPT-1 and the LSTM have in common: caches, checks of arguments, losses, shared prefixes, and heads.

A head is a mixin. A model class combines it with the `PreTrainedModel` of its architecture and names the base model
under it (`base_class`). Comments give shapes by the names of their axes: `(batch, seq, hidden)`.

This file travels to the Hub beside every checkpoint. It imports nothing else from the package.
"""

import difflib
import functools
import inspect
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple
from transformers.utils.import_utils import is_tracing

from .modeling_gpt1_cpu import fast_inference, is_fast_training, linear, matmul


logger = logging.get_logger(__name__)

# The name of the cache in the library's outputs and mask functions. transformers 5.24 renamed `past_key_values` to
# `cache`. Our code says `cache`, and the models accept both names.
CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"

# Arguments that only models with a head accept.
HEAD_ARGUMENTS = frozenset(
    {"labels", "logits_to_keep", "skip_logits", "smoothing", "num_items_in_batch", "branch_starts"}
)
# Arguments that any model passes on to its blocks and to the attention function.
PASSED_THROUGH = frozenset(TransformersKwargs.__annotations__) | {
    "shift_labels",  # for the loss of a language model
    "return_dict",
    "attention_instances",  # from vLLM
}


def is_readable(value: torch.Tensor | int) -> bool:
    """
    Whether the program may look at a value that a tensor holds.

    It cannot in a compiled or captured graph, whose shapes and branches are fixed, and there is no value in a meta or
    fake tensor. On a GPU, it would wait until all queued work is done, and the GPU would then wait for the program.
    """
    if is_tracing(value):
        return False
    return not isinstance(value, torch.Tensor) or value.device.type not in ("cuda", "meta")


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """
    Return the cache that the caller gave under either of its two names.

    Raises:
        ValueError: if both names are used.
    """
    if cache is not None and past_key_values is not None:
        raise ValueError("`cache` and `past_key_values` are two names of the same argument: pass only one of them")
    return past_key_values if cache is None else cache


def without_checkpointing(model: PreTrainedModel, cache: Cache | None) -> Cache | None:
    """
    Return the cache, or `None` while activation checkpointing is active.

    Checkpointing computes every block twice, which would add its keys to the cache twice.

    Raises:
        ValueError: if checkpointing is active and the cache already holds tokens.
    """
    if cache is None or not (model.gradient_checkpointing and model.training and torch.is_grad_enabled()):
        return cache
    if cache.get_seq_length():
        raise ValueError(
            "the cache holds earlier tokens, and activation checkpointing cannot extend it: train without a cache or "
            "without activation checkpointing"
        )
    return None


def check_keywords(model: PreTrainedModel, keywords: dict[str, Any]):
    """
    Reject keyword arguments that are mistakes for known arguments.

    The library passes arguments through the model to the attention function, which users can replace. An unknown name
    is therefore not always an error, but the name of another class's argument, or a near miss, is.

    Args:
        model (`PreTrainedModel`):
            Base model that received them.
        keywords (`dict`):
            Arguments that its `forward` does not name.

    Raises:
        TypeError: if a name is an argument of a model with a head (`labels` for a base model), or resembles a known
            argument.
    """
    unknown = [name for name in keywords if name not in PASSED_THROUGH]
    if not unknown:
        return
    own = inspect.signature(model.forward).parameters.keys() - {"kwargs"}
    known = own | HEAD_ARGUMENTS
    for name in unknown:
        problem = f"{type(model).__name__}.forward() got an unexpected keyword argument {name!r}"
        if name in known:
            raise TypeError(f"{problem}, which only models with a head accept")
        if near := difflib.get_close_matches(name, known | PASSED_THROUGH, n=1, cutoff=0.8):
            raise TypeError(f"{problem}: did you mean {near[0]!r}?")
        logger.warning_once(f"{problem}: it has no effect unless the attention function in use reads it")


def input_shape(input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Size:
    """
    Shape of the input in tokens, `(batch, seq)` or `(batch, rows, seq)`.

    Raises:
        ValueError: unless exactly one of the two inputs is passed.
    """
    if input_ids is not None and inputs_embeds is None:
        return input_ids.shape
    if inputs_embeds is not None and input_ids is None:
        return inputs_embeds.shape[:-1]
    raise ValueError("pass exactly one of input_ids and inputs_embeds")


class GPT1FamilyPreTrainedModel(PreTrainedModel):
    """Features and weight initialization that both architectures share."""

    supports_gradient_checkpointing = True
    _input_embed_layer = "tokens_embed"
    _skip_keys_device_placement = ["cache", "past_key_values"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        # The base class treats 0.0 as unset and draws with 0.02 (modeling_utils.py, `initializer_range or 0.02`).
        if self.config.initializer_range == 0.0 and isinstance(module, nn.Linear | nn.Embedding):
            init.zeros_(module.weight)

    def _embed(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        """Token embeddings `(batch, seq, hidden)` of exactly one of the two inputs."""
        input_shape(input_ids, inputs_embeds)
        return self.tokens_embed(input_ids) if inputs_embeds is None else inputs_embeds


# Number of logits that `linear_cross_entropy` holds at a time: 2^25 of them take 128 MiB in fp32.
LOGITS_PER_CHUNK = 1 << 25


class _LinearCrossEntropy(torch.autograd.Function):
    # The loss is a sum over tokens, so each chunk's gradients can be computed from its logits at once. The gradients
    # are kept and the logits are not. torch's own `linear_cross_entropy` (from 2.12) does the same, but it has no
    # weight per token and rounds the loss to the dtype of the states.
    @staticmethod
    def forward(ctx, states, weight, targets, token_weights):
        device_type = states.device.type
        autocast = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
        dtype = torch.get_autocast_dtype(device_type) if autocast else states.dtype
        inputs, matrix = states.to(dtype), weight.to(dtype)
        needs_states, needs_weight = ctx.needs_input_grad[:2]
        # In a mean over many tokens, each weight is too small for fp16. Gradients are computed with weights scaled to
        # at most 1. The backward pass applies the common factor together with the gradient scaler's.
        largest = token_weights.abs().max() if len(targets) else token_weights.new_ones(())
        factor = largest.clamp(min=torch.finfo(torch.float32).tiny)
        relative_weights = token_weights / factor
        weighted_inputs = (inputs * relative_weights[:, None]).to(dtype) if needs_weight else None
        grad_states = torch.empty_like(inputs) if needs_states else None
        grad_weight = None
        loss = torch.zeros((), dtype=torch.float32, device=states.device)
        # All chunks reuse the same memory: allocating new pages of this size costs as much as a pass over them.
        limit = max(1, LOGITS_PER_CHUNK // len(weight))
        rows = min(len(targets), limit)
        logits = inputs.new_empty(rows, len(weight))
        probabilities = inputs.new_empty(rows, len(weight), dtype=torch.float32)
        is_wide = dtype == torch.float32
        # The gradients of the logits replace what is no longer needed by then.
        grad_logits = probabilities if is_wide else logits
        # Counted, so that a compiled graph depends on the number of chunks, not on that of targets.
        for index in range(-(-len(targets) // limit)):
            chunk = slice(index * limit, min((index + 1) * limit, len(targets)))
            target, token_weight = targets[chunk, None], relative_weights[chunk, None]
            n = len(target)
            own = matmul(inputs[chunk], matrix.T, out=logits[:n])
            # A log-softmax beside the softmax would take as long again. The largest probability is exp(0) over the sum
            # of all, so its logarithm gives that of the sum.
            target_log_probs = own.gather(1, target).float() - own.amax(-1, keepdim=True)
            if is_wide:
                torch.softmax(own, -1, out=probabilities[:n])
            else:
                probabilities[:n].copy_(own)
                torch.softmax(probabilities[:n], -1, out=probabilities[:n])
            target_log_probs += probabilities[:n].amax(-1, keepdim=True).log()
            loss -= (target_log_probs * token_weight).sum()
            if needs_states or needs_weight:  # p - 1 at the target, p elsewhere
                if not is_wide:
                    grad_logits[:n].copy_(probabilities[:n])
                grad_logits[:n].scatter_(1, target, target_log_probs.expm1().to(dtype))
            if needs_states:
                grad_states[chunk] = matmul(grad_logits[:n], matrix) * token_weight
            if needs_weight:
                factors = grad_logits[:n].T, weighted_inputs[chunk]
                if grad_weight is None:
                    grad_weight = matmul(*factors).float()
                elif is_wide and not is_fast_training():
                    grad_weight.addmm_(*factors)
                else:
                    grad_weight.add_(matmul(*factors))
        if needs_weight and grad_weight is None:  # there are no targets
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
    Weighted sum of the cross-entropies of `softmax(states @ weight.T)`, without holding all logits in memory.

    Args:
        states (`torch.Tensor` of shape `(n, hidden)`):
            States that predict the targets.
        weight (`torch.Tensor` of shape `(vocab, hidden)`):
            Output embeddings.
        targets (`torch.LongTensor` of shape `(n,)`):
            Ids to predict. Tokens of weight 0 may have any id.
        token_weights (`torch.FloatTensor` of shape `(n,)`):
            Weight of each token in the sum.

    Returns:
        `torch.FloatTensor`: the loss, a scalar in nats, in fp32. It can be differentiated once.
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
    """transformers' `ForCausalLMLoss` (loss/loss_utils.py), computed from the states `(batch, seq, hidden)`."""
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


class CausalLMHead(GenerationMixin):
    """Language-model head on the base model `base_class`, with weights tied to the token embeddings."""

    base_class: type[PreTrainedModel]

    def __init__(self, config):
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.base_class(config))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
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
                Target ids, normally `input_ids` themselves: the logits at i − 1 predict position i. −100 is ignored.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Number of positions, counted from the end, to compute logits for; 0 means all.
            skip_logits (`bool`, *optional*, defaults to `False`):
                With labels, return the loss without the logits: the same value and gradients, in a fraction of the
                memory. [`GPT1Trainer`] sets it in training.
            smoothing (`float`, *optional*, defaults to 0.0):
                Share of each target that is spread evenly over the vocabulary. It needs the logits, so `skip_logits`
                has no effect.

        Returns:
            `CausalLMOutputWithPast` with `logits` of shape `(batch, seq, vocab)` and, with labels, the mean `loss` in
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
        # A head that an adapter or a quantizer replaced computes more than a product with its weight. One that is
        # compiled by itself does not.
        head = getattr(self.lm_head, "_orig_mod", self.lm_head)
        if skip_logits and not smoothing and labels is not None and type(head) is nn.Linear:
            loss = causal_lm_loss(outputs.last_hidden_state, self.lm_head.weight, labels, **kwargs)
        else:
            logits = linear(self.lm_head, slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
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

    @functools.wraps(GenerationMixin.generate)
    def generate(self, *args, **kwargs):
        with fast_inference(self.device):
            return super().generate(*args, **kwargs)

    def prepare_inputs_for_generation(self, input_ids, *args, inputs_embeds=None, **kwargs):
        inputs = super().prepare_inputs_for_generation(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)
        # PEFT (0.21) looks for the cache under its older name only. If it finds none, it inserts its virtual tokens
        # before every new token, although the cache already holds them.
        if "cache" in inputs:
            inputs["past_key_values"] = inputs.pop("cache")
        return inputs


@dataclass
class GPT1TaskOutput(SequenceClassifierOutputWithPast):
    """
    Output of a task head: the library's classifier output and the two terms of `loss`, which is
    `task_loss + lm_coef * lm_loss` (paper eq. 5). `logits` are scores before the softmax: `(batch, num_labels)` for
    sequences, `(batch, choices)` for multiple choice, `(batch, seq, num_labels)` for tokens.

    Args:
        task_loss (`torch.FloatTensor`, *optional*):
            The supervised term (paper eq. 4), returned when the auxiliary objective is on.
        lm_loss (`torch.FloatTensor`, *optional*):
            The language-model term: the mean over examples of each sequence's mean token loss, in nats.
    """

    task_loss: torch.Tensor | None = None
    lm_loss: torch.Tensor | None = None


class PackedRows(NamedTuple):
    """
    Rows that hold several sequences one after another.

    Args:
        ids (`torch.LongTensor` of shape `(rows, seq)`):
            Index of each token's sequence, over all rows.
        n_sequences (`int`):
            Number of sequences; where it would have to be read from a GPU, the largest possible one.
    """

    ids: torch.Tensor
    n_sequences: int

    @classmethod
    def find(cls, position_ids: torch.Tensor, n_sequences: int | None = None) -> "PackedRows | None":
        """
        Find the sequences by positions of shape `(rows, seq)`: one that is not its left neighbour's plus one starts a
        new sequence. Unless their number is passed, the positions are read, and the result is `None` if each row is
        one sequence.
        """
        follows = position_ids[:, 1:] == position_ids[:, :-1] + 1
        if n_sequences is None and follows.all():
            return None
        starts = nn.functional.pad(~follows, (1, 0), value=True)
        ids = (starts.flatten().cumsum(0) - 1).view_as(starts)
        return cls(ids, int(ids[-1, -1]) + 1 if n_sequences is None else n_sequences)

    def is_packed(self) -> torch.Tensor:
        """Whether any row holds several sequences, as a scalar tensor."""
        return self.ids[-1, -1] >= len(self.ids)

    def last(self) -> torch.Tensor:
        """Index of each sequence's last token among the tokens of all rows, `(n_sequences,)`."""
        sequences = torch.arange(self.n_sequences, device=self.ids.device)
        return torch.searchsorted(self.ids.flatten(), sequences, right=True) - 1


class Branches(NamedTuple):
    """
    Layout of rows that hold several sequences with a common prefix: the prefix once, then one branch per sequence.

    Args:
        ids (`torch.LongTensor` of shape `(batch, seq)`):
            0 for the tokens of the prefix, k for those of the k-th branch.
        position_ids (`torch.LongTensor` of shape `(batch, seq)`):
            Position of each token in its own sequence.
        starts, ends (`torch.LongTensor` of shape `(batch, branches)`):
            Index of each branch's first and last token.
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
        """Compute the layout of a batch of shape `(batch, seq)`, padded on either side, from the branches' starts."""
        if token_mask is None:
            token_mask = starts.new_ones(shape)
        is_token = token_mask.bool()
        index = torch.arange(shape[1], device=starts.device)
        ids = (index[:, None] >= starts[:, None]).sum(-1)  # (batch, seq)
        past_prefix = (starts - starts[:, :1]).gather(1, (ids - 1).clamp(min=0))  # tokens in earlier branches
        position_ids = (is_token.cumsum(-1) - 1 - past_prefix).clamp(min=0)
        ends = torch.cat([starts[:, 1:] - 1, (is_token * index).argmax(-1, keepdim=True)], dim=-1)
        return cls(ids, position_ids, starts, ends, is_token)

    def lengths(self) -> torch.Tensor:
        """Number of tokens of each sequence, prefix included, `(batch, branches)`."""
        n_prefix = (self.is_token & (self.ids == 0)).sum(-1, keepdim=True)
        return n_prefix + self.ends - self.starts + 1

    def separate(self, tensor: torch.Tensor) -> torch.Tensor:
        """Give each sequence its own row: `(batch, seq, ...)` to `(batch, branches, longest, ...)`, 0 at padding."""
        lengths = self.lengths()[..., None]  # (batch, branches, 1)
        starts, first = self.starts[..., None], self.is_token.int().argmax(-1)[:, None, None]
        index = torch.arange(int(lengths.max()), device=tensor.device)
        source = torch.where(first + index < starts[:, :1], first, starts - starts[:, :1] + first) + index
        in_row = index < lengths
        rows = tensor[torch.arange(len(tensor), device=tensor.device)[:, None, None], source * in_row]
        return rows * in_row.view(*in_row.shape, *[1] * (rows.dim() - 3))


def extract_states(
    hidden_states: torch.Tensor, token_mask: torch.Tensor | None, sequences: PackedRows | Branches | None
) -> torch.Tensor:
    """State of each sequence's last token, `(sequences, hidden)`, for padding on either side."""
    if isinstance(sequences, Branches):
        index = torch.arange(len(hidden_states), device=hidden_states.device)[:, None]
        return hidden_states[index, sequences.ends].flatten(0, 1)
    if sequences is not None:
        return hidden_states.flatten(0, 1)[sequences.last()]
    rows, seq_len = hidden_states.shape[:2]
    positions = torch.arange(seq_len, device=hidden_states.device)
    last = positions[-1].expand(rows)
    if token_mask is not None:
        last = (token_mask.to(positions.dtype) * positions).argmax(-1)
    return hidden_states[torch.arange(rows, device=hidden_states.device), last]


class TaskHead:
    """
    Common part of the task heads: the pass through the base model `base_class`, and the two terms of the loss. A head
    defines `_logits`, which computes logits from the states `(batch * n_rows, seq, hidden)`, and, unless its loss is a
    cross-entropy, `_label_losses`.

    The task term is the sum of the labels' losses divided by `num_items_in_batch`, the number of labels in a whole
    update. The auxiliary term weights each sequence by its number of labels. Summed over gradient accumulation and
    processes, both terms therefore equal those of one large batch.
    """

    base_class: type[PreTrainedModel]
    base_model: Any
    config: Any
    training: bool

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        setattr(self, self.base_model_prefix, self.base_class(config))
        self.dropout = nn.Dropout(config.classifier_dropout)
        # PEFT finds the head under this name, to train and save it beside an adapter.
        self.classifier = nn.Linear(config.hidden_size, self.n_outputs)
        self.post_init()

    @property
    def n_outputs(self) -> int:
        """Width of the classifier."""
        return self.config.num_labels

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        branch_starts: torch.Tensor | None = None,
        cache: Cache | None = None,
        smoothing: float = 0.0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> GPT1TaskOutput:
        r"""
        Args (the others as in [`GPT1Model.forward`], in the shape of `input_ids`):
            input_ids (`torch.LongTensor` of shape `(batch, seq)` or `(batch, rows, seq)`, *optional*):
                Token ids; each row ends in the extract token. The rows of an example are its choices in multiple
                choice and the two orders of a pair in sequence classification. In packed rows (`position_ids` that
                restart, no mask), each sequence is a separate example.
            labels (`torch.LongTensor` or `torch.FloatTensor`, *optional*):
                Labels, as described in the head's class; −100 is ignored.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Number of labels that the loss is averaged over; defaults to the number in this batch. Trainer passes
                it when an update spans several batches or processes.
            branch_starts (`torch.LongTensor` of shape `(batch, rows)`, *optional*):
                For input of shape `(batch, seq)` in which one row holds an example's common prefix once, followed by
                the rest of each of its rows (a branch): the index at which each branch starts. The result equals that
                of input `(batch, rows, seq)` at the cost of the shorter input. A base model that cannot share a
                prefix, such as the LSTM, receives separate rows.
            smoothing (`float`, *optional*, defaults to 0.0):
                Share of each label that is spread evenly over the classes or choices in `task_loss`.

        Returns:
            [`GPT1TaskOutput`]. With a cache, the task loss covers the whole input, and the auxiliary loss covers the
            tokens after the cache.

        Raises:
            ValueError: as in [`GPT1Model.forward`]; if the labels do not fit the head; or if `num_items_in_batch`
                comes without labels, as from `Trainer` with `label_smoothing_factor`, which would drop the auxiliary
                loss.
        """
        if labels is None and num_items_in_batch is not None and self.config.lm_coef:
            raise ValueError(
                "num_items_in_batch without labels: Trainer withholds the labels from the model if "
                "label_smoothing_factor or compute_loss_func is set, which would drop the auxiliary language-model "
                "loss; use GPT1Trainer, which smooths the task loss, or set config.lm_coef to 0"
            )
        cache = one_cache(cache, past_key_values)
        branches = None
        if branch_starts is not None:
            token_mask = self._token_mask(input_ids, attention_mask)
            branches = Branches.find(branch_starts, token_mask, input_shape(input_ids, inputs_embeds))
            position_ids = branches.position_ids
            if self.base_model.takes_branches:
                kwargs["branch_ids"], use_cache = branches.ids, False
            else:
                input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds = (
                    None if tensor is None else branches.separate(tensor)
                    for tensor in (input_ids, branches.is_token.long(), token_type_ids, position_ids, inputs_embeds)
                )
                branches = None
        shape = input_shape(input_ids, inputs_embeds)
        n_rows = shape[1] if len(shape) == 3 else 1
        if len(shape) == 3:
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
            token_mask = token_mask[:, -hidden_states.shape[1] :]  # without the cached tokens
        sequences: PackedRows | Branches | None = None
        if branches is not None:
            n_rows, sequences = branches.starts.shape[1], branches
        elif position_ids is not None and attention_mask is None and cache is None:
            sequences = self._packed_rows(position_ids.expand(hidden_states.shape[:2]), labels, n_rows)
            if sequences is not None and token_mask is not None:
                # Packed rows have no padding, and share the padding token's id with unknown words.
                token_mask = token_mask | sequences.is_packed()
        logits = self._logits(hidden_states, token_mask, sequences, n_rows)

        losses = {}
        if labels is not None:
            if input_ids is None:
                labels = self._labels_for_states(labels, hidden_states)
            n_labels = self._labels_per_sequence(labels, sequences, n_rows)
            n_items = n_labels.sum() if num_items_in_batch is None else num_items_in_batch
            losses["loss"] = self._label_losses(logits, labels, smoothing).sum() / n_items
            if smoothing and not self.takes_smoothing:
                raise ValueError(
                    f"label smoothing spreads a label over classes, but the labels of this {type(self).__name__} are "
                    "not classes: switch it off"
                )
            if self.config.lm_coef and input_ids is not None:
                losses["task_loss"] = losses["loss"]
                losses["lm_loss"] = self._lm_loss(hidden_states, input_ids, token_mask, sequences, n_labels / n_items)
                losses["loss"] = losses["task_loss"] + self.config.lm_coef * losses["lm_loss"]
        return GPT1TaskOutput(
            logits=self._output_logits(logits),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
            **losses,
        )

    def _logits(self, hidden_states: torch.Tensor, token_mask, sequences, n_rows: int) -> torch.Tensor:
        """Logits from the states `(batch * n_rows, seq, hidden)`."""
        raise NotImplementedError

    def _packed_rows(self, position_ids, labels, n_rows: int) -> PackedRows | None:
        """The sequences of packed rows, by positions `(batch * n_rows, seq)`; `None` if each row is one sequence."""
        if labels is None or is_readable(position_ids):
            return PackedRows.find(position_ids)
        # There are as many sequences as labels: the positions need not be read.
        n_sequences = len(labels) * n_rows
        if n_sequences == len(position_ids):
            return None
        sequences = PackedRows.find(position_ids, n_sequences)
        if sequences is not None and not torch.compiler.is_compiling():
            fits = sequences.ids[-1, -1] == n_sequences - 1
            torch._assert_async(fits, "packed rows need as many labels as sequences")
        return sequences

    def _token_mask(self, input_ids, attention_mask) -> torch.Tensor | None:
        """Which positions hold a token: the mask or, without one, every id but the padding token's."""
        if attention_mask is None and input_ids is not None and self.config.pad_token_id is not None:
            return input_ids != self.config.pad_token_id
        return attention_mask

    def _labels_for_states(self, labels: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """Fit the labels to states that include virtual tokens, which PEFT puts before the text's embeddings."""
        return labels

    @property
    def takes_smoothing(self) -> bool:
        """Whether a label is one of several classes, so that label smoothing applies."""
        return True

    def _label_losses(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Loss of each label: cross-entropy over the last axis of the logits."""
        return nn.functional.cross_entropy(
            logits.float().flatten(0, -2), labels.flatten(), reduction="none", label_smoothing=smoothing
        )

    def _output_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits to return to the caller."""
        return logits

    def _labels_per_sequence(self, labels: torch.Tensor, sequences, n_rows: int) -> torch.Tensor:
        """Number of labels of each sequence, `(sequences,)`. The rows of an example share its label in equal parts."""
        n_labels = (labels != -100).reshape(len(labels), -1).sum(-1)
        return n_labels.repeat_interleave(n_rows) / n_rows

    def _lm_loss(self, hidden_states, input_ids, token_mask, sequences, sequence_weights) -> torch.Tensor:
        """Sum over sequences of weight times mean token loss, with the tied softmax. Padding does not count."""
        if isinstance(sequences, Branches):
            return self._branched_lm_loss(hidden_states, input_ids, sequences, sequence_weights)
        if sequences is None:
            index = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(input_ids)
        else:
            index = sequences.ids
        # (rows, seq - 1): whether a token is predicted from the one before it
        scored = index[:, 1:] == index[:, :-1]
        if token_mask is not None:
            scored = scored & token_mask[:, 1:].bool() & token_mask[:, :-1].bool()
        lengths = torch.zeros(len(sequence_weights), device=scored.device)
        lengths.index_add_(0, index[:, 1:].flatten(), scored.flatten().float())
        token_weights = (sequence_weights / lengths.clamp(min=1))[index[:, 1:]] * scored
        return self._weighted_lm_loss(hidden_states[:, :-1], input_ids[:, 1:], token_weights, scored)

    def _branched_lm_loss(self, hidden_states, input_ids, branches: Branches, row_weights) -> torch.Tensor:
        """As `_lm_loss`, for a shared prefix: its tokens count once for each branch."""
        is_token, n_before = branches.is_token, (branches.lengths() - 1).clamp(min=1)
        token_weights = row_weights.view(branches.starts.shape) / n_before  # (batch, branches)
        token_weights = torch.cat([token_weights.sum(-1, keepdim=True), token_weights], -1).gather(1, branches.ids)
        # Index of the state that predicts each token: its left neighbour or, for a branch's first token, the
        # prefix's last token.
        before = (torch.arange(input_ids.shape[1], device=input_ids.device) - 1).expand_as(input_ids)
        before = before.scatter(1, branches.starts, (branches.starts[:, :1] - 1).expand_as(branches.starts))
        scored = (is_token & (before >= is_token.int().argmax(-1, keepdim=True)))[:, 1:]
        index = torch.arange(len(before), device=before.device)[:, None]
        states = hidden_states[index, before[:, 1:].clamp(min=0)]
        return self._weighted_lm_loss(states, input_ids[:, 1:], token_weights[:, 1:] * scored, scored)

    def _weighted_lm_loss(self, states, targets, token_weights, scored) -> torch.Tensor:
        """Weighted sum of the token losses, of shapes `(rows, seq, hidden)` and `(rows, seq)`."""
        parts = (states, targets, token_weights)
        if is_readable(scored):
            states, targets, token_weights = (part[scored] for part in parts)
        else:  # the others have weight 0
            states, targets, token_weights = (part.flatten(0, 1) for part in parts)
        return linear_cross_entropy(states, self.base_model.get_input_embeddings().weight, targets, token_weights)


class SequenceClassificationHead(TaskHead):
    """
    Predicts one label for a text or a pair, from the state of the extract token (paper eq. 3). For input of shape
    `(batch, 2, seq)`, the states of the two orders are added (paper §3.3, similarity). A model trained on both orders
    (`config.both_orders`) rejects a single one, because its prediction would differ.

    Logits have the shape `(batch, num_labels)`, or `(sequences, num_labels)` for packed rows. Labels of shape
    `(batch,)` are class ids or, with `num_labels=1`, scores. Labels of shape `(batch, num_labels)` are several labels
    or several scores per row. `config.problem_type` says which. If it is not set, a single label is a score, integers
    are classes, and floats are several labels. A score outside the bins of `config.regression_bins` raises a
    `ValueError`.
    """

    @property
    def n_outputs(self) -> int:
        return self.config.regression_bins or self.config.num_labels

    def _logits(self, hidden_states, token_mask, sequences, n_rows):
        if self.training:
            if n_rows == 2 and not self.config.both_orders:
                self.config.both_orders = True
            elif n_rows != 2 and self.config.both_orders:
                self.config.both_orders = False
        elif n_rows == 1 and self.config.both_orders:
            raise ValueError(
                "this model reads a pair in both orders, as input of shape (batch, 2, seq), but the input has one "
                'order: use its GPT1Processor, or pipeline("text-classification") after `import gpt1_hf`'
            )
        extract = extract_states(hidden_states, token_mask, sequences)
        return self.classifier(self.dropout(extract.unflatten(0, (-1, n_rows)).sum(1)))

    @property
    def takes_smoothing(self):
        is_class = self.config.problem_type in (None, "single_label_classification") and self.config.num_labels > 1
        return is_class and not self.config.regression_bins

    def _label_losses(self, logits, labels, smoothing=0.0):
        logits = logits.float()
        if self.config.regression_bins:
            last = self.config.regression_bins - 1
            if not torch.compiler.is_compiling():
                is_wrong = ((labels < 0) | (labels > last)).any()
                error = f"a label lies outside 0 to {last}, the range of config.regression_bins: rescale the labels"
                if not is_readable(labels):
                    torch._assert_async(~is_wrong, error)
                elif is_wrong:
                    raise ValueError(error)
            # The two integers next to a score share its probability mass (Tai et al., 2015, eq. 15).
            bins = torch.arange(last + 1, device=logits.device)
            targets = (1 - (labels.float().view(-1, 1) - bins).abs()).clamp(min=0)
            return nn.functional.cross_entropy(logits, targets, reduction="none")
        problem_type = self._problem_type(labels)
        is_class = problem_type == "single_label_classification"
        if labels.numel() != (len(logits) if is_class else logits.numel()):
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} and type {labels.dtype} do not fit logits of shape "
                f"{tuple(logits.shape)} ({problem_type}): pass an integer class id for each row, or a float for each "
                "logit"
            )
        if self.config.problem_type is None:
            self.config.problem_type = problem_type  # stored in the config, as the library's heads do
        if is_class:
            return super()._label_losses(logits, labels, smoothing)
        loss = {
            "regression": nn.functional.mse_loss,
            "multi_label_classification": nn.functional.binary_cross_entropy_with_logits,
        }[problem_type]
        return loss(logits.view_as(labels), labels.float(), reduction="none")

    def _problem_type(self, labels: torch.Tensor) -> str:
        """The configured type or, as in the library's own heads, the one that fits the labels."""
        if self.config.num_labels == 1:
            return "regression"
        inferred = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        return self.config.problem_type or inferred

    def _output_logits(self, logits):
        if not self.config.regression_bins:
            return logits
        bins = torch.arange(self.n_outputs, device=logits.device, dtype=torch.float32)
        return (logits.float().softmax(-1) @ bins).unsqueeze(-1)


class MultipleChoiceHead(TaskHead):
    """
    Scores each choice by the state of its extract token, with a softmax over the choices (paper §3.3).

    Input has the shape `(batch, choices, seq)`, logits have the shape `(batch, choices)`, and labels of shape
    `(batch,)` are the indices of the right choices.
    """

    @property
    def n_outputs(self) -> int:
        return 1

    def _logits(self, hidden_states, token_mask, sequences, n_rows):
        extract = extract_states(hidden_states, token_mask, sequences).unflatten(0, (-1, n_rows))
        # The choices of a question share one dropout mask, as in the released code (train.py, `clf`).
        return self.classifier(extract * self.dropout(torch.ones_like(extract[:, :1]))).squeeze(-1)


class TokenClassificationHead(TaskHead):
    """
    Predicts one label for each token, from a state that depends only on the tokens to its left. Not in the paper.

    Logits have the shape `(batch, seq, num_labels)`, labels the shape `(batch, seq)`. With `inputs_embeds`, labels may
    cover only the last positions.
    """

    def _logits(self, hidden_states, token_mask, sequences, n_rows):
        return self.classifier(self.dropout(hidden_states))

    def _labels_for_states(self, labels, hidden_states):
        n_before = hidden_states.shape[1] - labels.shape[1]
        return nn.functional.pad(labels, (max(n_before, 0), 0), value=-100)

    def _packed_rows(self, position_ids, labels, n_rows):
        # Each token may be a sequence: nothing of the result has the shape of the sequences' number.
        return PackedRows.find(position_ids, None if is_readable(position_ids) else position_ids.numel())

    def _labels_per_sequence(self, labels, sequences, n_rows):
        labelled = (labels != -100).float()
        if sequences is None:
            return labelled.sum(-1)
        return labelled.new_zeros(sequences.n_sequences).index_add(0, sequences.ids.flatten(), labelled.flatten())


__all__ = [
    "CausalLMHead",
    "GPT1FamilyPreTrainedModel",
    "GPT1TaskOutput",
    "MultipleChoiceHead",
    "SequenceClassificationHead",
    "TokenClassificationHead",
]
