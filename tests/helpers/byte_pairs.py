"""Byte-pair encoding as the released code does it (`text_utils.py` of openai/finetune-transformer-lm)."""

from pathlib import Path


def read_ranks(folder: str | Path) -> dict[tuple[str, ...], int]:
    """Merges of `vocab_40000.bpe`, each with its rank."""
    merges = (Path(folder) / "vocab_40000.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
    return {tuple(line.split()): rank for rank, line in enumerate(merges)}


def split_word(word: str, ranks: dict[tuple[str, ...], int]) -> list[str]:
    """Join the pair of the lowest rank until no pair has one."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        best = min(zip(parts, parts[1:], strict=False), key=lambda pair: ranks.get(pair, float("inf")))
        if best not in ranks:
            break
        merged, i = [], 0
        while i < len(parts):
            step = 2 if tuple(parts[i : i + 2]) == best else 1
            merged.append("".join(parts[i : i + step]))
            i += step
        parts = merged
    return parts
