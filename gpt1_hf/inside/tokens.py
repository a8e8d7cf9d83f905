"""Tokens as text, for people to read."""

from unicodedata import category

from transformers import PreTrainedTokenizerBase

from ..tokenization_gpt1 import END_OF_WORD


# Unicode categories without a visible shape: controls, writing directions, unassigned, private.
INVISIBLE = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """A token's spelling, with a space where a word ends."""
    return tokenizer.convert_ids_to_tokens(token).replace(END_OF_WORD, " ")


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Each token's piece of the decoded text, with the space before it."""
    text, texts, start = tokenizer.decode(ids).removeprefix(" "), [], 0
    for token in ids:
        piece = token_text(tokenizer, token).removesuffix(" ")
        place = text.find(piece, start)
        if place < 0:  # in tokenizers of other families, tokens are spelled differently from the text
            return [token_text(tokenizer, token) for token in ids]
        texts.append(text[start : place + len(piece)])
        start = place + len(piece)
    return texts


def visible(text: str) -> str:
    """Make line breaks visible, and replace characters that have no visible shape by their codes."""
    return "".join(
        "↵" if character == "\n" else f"U+{ord(character):04X}" if category(character) in INVISIBLE else character
        for character in text
    )


__all__ = ["token_text", "token_texts", "visible"]
