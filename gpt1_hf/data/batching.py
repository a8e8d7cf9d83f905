"""From a processor's rows to a batch: padded, packed, or with the shared prefix of a question's choices held once."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Sampler

from ..processing_gpt1 import GPT1Processor, as_columns, as_lists


# Columns that may hold a row's label: the names in data sets, in models, and in transformers' collators.
LABELS = ("label", "labels", "label_ids")
IGNORED = -100  # label of a token without one


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the prefix that all sequences share. Each sequence keeps at least one token of its own."""
    longest = min(map(len, sequences)) - 1
    first, *others = sequences
    # Usually whole documents agree, so comparing slices is fastest.
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        if all(other[low:middle] == first[low:middle] for other in others):
            low = middle
        else:
            high = middle - 1
    return low


@dataclass
class GPT1DataCollator:
    """
    Makes a batch from rows of token ids, for [`GPT1Trainer`] or any training loop. Rows may have any format of a data
    set (lists, NumPy, PyTorch, pandas). Existing padding is removed by `attention_mask` and added again.

    Args:
        processor ([`GPT1Processor`]):
            Processor that made the rows; its tokenizer defines padding token and side.
        pad_to_multiple_of (`int`, *optional*):
            Round the batch's length up to a multiple of this number, which is faster on tensor cores.
        packing (`bool`, *optional*, defaults to `False`):
            Put the sequences one after another in a single row without padding, separated by their `position_ids`.
            Only for input formats with one sequence per row. Use an attention that skips masked tokens, such as flash
            or flex: the work of others grows with the square of the whole row.
        shared_prefix (`bool`, *optional*, defaults to `True`):
            In multiple choice, hold the shared prefix of a question's choices once, so that the model computes it
            once. Logits, loss and gradients are the same.

    Returns:
        `dict` with `input_ids` and, unless packed, `attention_mask`. Their shape is `(batch, seq)`, or `(batch,
        sequences, seq)` if a row has several sequences. With a shared prefix it is `(batch, seq)`, with
        `branch_starts` of shape `(batch, choices)`; packed, it is `(1, tokens)`, with `position_ids`. Padding on the
        left also adds `position_ids`. If the rows have a `label` (or `labels`, or `label_ids`), `labels` has the shape
        `(batch,)`; with several numbers per row, `(batch, numbers)`; with an integer per token, the shape of
        `input_ids`, and −100 at padding. Integers stay integers, other numbers become fp32. A label that is `None` or
        NaN is missing, which must hold for all rows or none.

    Raises:
        ValueError: if rows with several sequences are to be packed, or have unequal numbers of sequences; if labels
        are not numbers or differ in length; or if only some rows have a label.
    """

    processor: GPT1Processor
    pad_to_multiple_of: int | None = None
    packing: bool = False
    shared_prefix: bool = True

    def __post_init__(self):
        if self.packing and self.processor.has_several_sequences:
            raise ValueError(
                f"the {self.processor.input_format} format has several sequences per row, which cannot be packed: "
                "turn packing off"
            )

    def __call__(self, rows: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [_as_row(row) for row in rows]
        sequences, labels = self._sequences(rows), self._labels(rows)
        is_per_token = labels is not None and self._are_per_token(labels, sequences)
        if labels is not None and is_per_token:
            labels = [_without_padding(label, row) for label, row in zip(labels, rows, strict=True)]
        sequences = [_without_padding(sequence, row) for sequence, row in zip(sequences, rows, strict=True)]
        if self.packing:
            batch = {
                "input_ids": torch.tensor([[token for sequence in sequences for token in sequence]]),
                "position_ids": torch.cat([torch.arange(len(sequence)) for sequence in sequences])[None],
            }
        elif not self.processor.has_several_sequences:
            batch = self._pad(sequences)
        else:
            for index, row in enumerate(sequences):
                if len(row) != len(sequences[0]):
                    raise ValueError(
                        f"row {index} of the batch has {len(row)} choices, but row 0 has {len(sequences[0])}: all "
                        "rows of a batch need the same number"
                    )
            if self.shared_prefix and self.processor.input_format == "multiple_choice":
                batch = self._share_prefixes(sequences)
            else:
                batch = self._pad([sequence for row in sequences for sequence in row])
                batch = {name: tensor.unflatten(0, (len(rows), -1)) for name, tensor in batch.items()}
        if labels is not None and is_per_token:
            batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
            is_token = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
            batch["labels"][is_token] = torch.tensor([number for label in labels for number in label])
        elif labels is not None:
            batch["labels"] = torch.tensor(labels)
        return batch

    def _sequences(self, rows: list[Mapping[str, Any]]) -> list[list]:
        """Token ids of each row, or lists of them."""
        if not rows:
            raise ValueError("give the collator at least one row")
        sequences = [as_lists(row["input_ids"]) for row in rows]
        several = self.processor.has_several_sequences
        for index, sequence in enumerate(sequences):
            if (bool(sequence) and isinstance(sequence[0], list)) != several:
                raise ValueError(
                    f"row {index} of the batch holds {'one sequence' if several else 'several sequences'}, but the "
                    f"{self.processor.input_format} format has {'several' if several else 'one'} per row: encode it "
                    "with the collator's own processor"
                )
        return sequences

    def _labels(self, rows: list[Mapping[str, Any]]) -> list | None:
        """Label of each row, a number or a list of numbers; `None` if the rows have no labels."""
        labels: list[Any] = []
        for index, row in enumerate(rows):
            found = {name: label for name in LABELS if not _is_missing(label := as_lists(row.get(name)))}
            if len({repr(label) for label in found.values()}) > 1:
                raise ValueError(f"row {index} of the batch has different {' and '.join(found)}: keep one of them")
            labels.append(next(iter(found.values()), None))
        missing = [index for index, label in enumerate(labels) if label is None]
        if len(missing) == len(labels):
            return None
        if missing:
            raise ValueError(f"row {missing[0]} of the batch has no label, but others have: label all rows or none")
        for index, label in enumerate(labels):
            numbers = label if isinstance(label, list) else [label]
            for number in numbers:
                if not isinstance(number, int | float) or not math.isfinite(number):
                    raise ValueError(
                        f"row {index} of the batch has the label {label!r}, but labels must be numbers: give class "
                        "ids from 0 (Dataset.class_encode_column makes them from names), or scores"
                    )
        if all(isinstance(label, bool) for label in labels):
            return [int(label) for label in labels]
        # A list of booleans says for each class whether it applies; it is trained on as numbers.
        return [
            [float(number) if isinstance(number, bool) else number for number in label]
            if isinstance(label, list)
            else label
            for label in labels
        ]

    def _are_per_token(self, labels: list, sequences: list[list]) -> bool:
        """Whether labels belong to tokens; raises if the rows have different numbers of labels."""
        n_labels = [len(label) if isinstance(label, list) else None for label in labels]
        lengths = [len(sequence) for sequence in sequences]
        is_whole = all(isinstance(number, int) for label in labels if isinstance(label, list) for number in label)
        if None not in n_labels and is_whole and n_labels == lengths and not self.processor.has_several_sequences:
            return True
        for index, n in enumerate(n_labels):
            if n != n_labels[0]:
                this, first = ("one" if count is None else f"a list of {count}" for count in (n, n_labels[0]))
                raise ValueError(
                    f"row {index} of the batch has {this} as its label, but row 0 has {first}: all rows need the same "
                    "number of labels, or an integer for each token"
                )
        return False

    def _share_prefixes(self, questions: Sequence[Sequence[list[int]]]) -> dict[str, torch.Tensor]:
        joined, starts = [], []
        for choices in questions:
            n_common = common_prefix(choices)
            row, row_starts = list(choices[0][:n_common]), []
            for choice in choices:
                row_starts.append(len(row))
                row += choice[n_common:]
            joined.append(row)
            starts.append(row_starts)
        batch = self._pad(joined)
        batch.pop("position_ids", None)  # the model computes those of branches
        batch["branch_starts"] = torch.tensor(starts)
        if self.processor.tokenizer.padding_side == "left":
            batch["branch_starts"] += (batch["attention_mask"] == 0).sum(-1, keepdim=True)
        return batch

    def _pad(self, sequences: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        tokenizer = self.processor.tokenizer
        batch = tokenizer.pad(
            {"input_ids": sequences},
            padding=True,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors="pt",
            verbose=False,
        )
        if tokenizer.padding_side == "left":
            batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        return dict(batch)


# A batch is packed if at least this share of it is padding. The mask grows with the square of its tokens, so that
# their number is limited.
MIN_PADDING, MAX_PACKED = 0.1, 4096


@dataclass
class PackingCollator:
    """
    Packs the batches of a collator that hold much padding, for a training attention that skips masked tokens.

    Args:
        collator (`GPT1DataCollator`):
            Collator without packing.

    Returns:
        `dict`: the collator's batch or, if it is packed, `input_ids` and `position_ids` of shape `(1, tokens)` and the
        same `labels`. Loss and gradients are the same.
    """

    collator: GPT1DataCollator

    def __call__(self, rows: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.collator(rows)
        names = {"input_ids", "attention_mask", "labels"}
        if not names <= batch.keys() <= names | {"position_ids"}:
            return batch
        mask, labels = batch["attention_mask"], batch["labels"]
        if mask.dim() != 2 or labels.shape == mask.shape:
            return batch
        is_token = mask.bool()
        n_tokens, is_empty = int(is_token.sum()), not is_token.any(-1).all()
        if is_empty or n_tokens > min(MAX_PACKED, (1 - MIN_PADDING) * mask.numel()):
            return batch
        positions = mask.cumsum(-1) - 1
        packed = {"input_ids": batch["input_ids"], "position_ids": positions}
        return {name: tensor[is_token][None] for name, tensor in packed.items()} | {"labels": labels}


def _as_row(row: Any) -> Mapping[str, Any]:
    """A row as a mapping; pandas and Arrow may give a table with one row."""
    columns = as_columns(row)
    if columns is not None and not isinstance(row, Mapping):
        columns = {name: as_lists(values) for name, values in columns.items()}
        columns = {name: values[0] for name, values in columns.items() if len(values) == 1}
    if columns is None or "input_ids" not in columns:
        raise ValueError("rows need input_ids: encode them with the processor")
    return columns


def _is_missing(label: Any) -> bool:
    """Whether a label is missing. In NumPy's and pandas' formats it is NaN."""
    return label is None or (isinstance(label, float) and math.isnan(label))


def _without_padding(values: list, row: Mapping[str, Any]) -> list:
    """The values of a row's tokens, without padding."""
    mask = as_lists(row.get("attention_mask"))
    if mask is None:
        return values
    if mask and isinstance(mask[0], list):
        return [_without_padding(part, {"attention_mask": own}) for part, own in zip(values, mask, strict=True)]
    return values if all(mask) else [value for value, is_token in zip(values, mask, strict=True) if is_token]


# The number of updates whose rows are sorted together by length: enough for nearly all of the saving, and few enough
# that the updates differ from epoch to epoch. See tests/benchmarks/batching.py.
UPDATES_PER_SORT = 16


class LengthGroupedSampler(Sampler[int]):
    """
    A random order in which the rows of an update have similar lengths, so that little of it is padding.

    Unlike in transformers' sampler of the same name, updates come in random order, not by descending length, and the
    order depends on seed and epoch alone: it is the same on all processes and after resuming.

    Args:
        lengths (`Sequence[int]`):
            Length of each row.
        update_size (`int`):
            Rows per update, over all processes and accumulated batches.
        seed (`int`, *optional*, defaults to 0):
            Seed of the order.
    """

    def __init__(self, lengths: Sequence[int], update_size: int, seed: int = 0):
        self.lengths = torch.as_tensor(lengths)
        self.update_size = update_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        order = torch.randperm(len(self), generator=generator)
        groups = [
            rows[self.lengths[rows].argsort(stable=True)] for rows in order.split(UPDATES_PER_SORT * self.update_size)
        ]
        # Only the last group can end with an incomplete update, which stays the last.
        updates = [update for group in groups for update in group.split(self.update_size)]
        n_whole = len(self) // self.update_size
        for index in [*torch.randperm(n_whole, generator=generator).tolist(), *range(n_whole, len(updates))]:
            yield from updates[index].tolist()


def row_lengths(input_ids: Sequence[Sequence]) -> list[int]:
    """Length of each row of token ids. A row with several sequences has the length of the longest."""
    rows = map(as_lists, input_ids)
    return [max(map(len, row)) if row and isinstance(row[0], list) else len(row) for row in rows]
