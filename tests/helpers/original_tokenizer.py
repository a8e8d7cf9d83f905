"""GPT-1's original tokenization, step by step in Python: the reference for [`GPT1Tokenizer`].

It follows the released code (`text_utils.py` of openai/finetune-transformer-lm): ftfy, standardisation, spaCy's
English tokenizer, lower-casing, byte-pair encoding. It is slow, and needs the `exact` extra.
"""

import json
import re
from functools import cache
from pathlib import Path

import ftfy
import spacy
from helpers.byte_pairs import read_ranks, split_word


SUBSTITUTES = str.maketrans({"\u2014": "-", "\u2013": "-", "\u2015": "-", "\u2026": "...", "\u00b4": "'"})
RUN_OF_A_MARK = re.compile(r"([-~!\";?+,)(/*\[\]}{|_])\1*")
LINE_BREAK = re.compile(r"\s*\n\s*")
SPACES = re.compile(r"[^\S\n]+")


def standardize(text: str) -> str:
    """Spaces around punctuation, one kind of dash, quote and white space."""
    text = RUN_OF_A_MARK.sub(r" \g<0> ", text.translate(SUBSTITUTES))
    return SPACES.sub(" ", LINE_BREAK.sub(" \n ", text)).strip()


class OriginalTokenizer:
    """
    Args:
        folder (`str` or `Path`, *optional*):
            Folder with `encoder_bpe_40000.json` and `vocab_40000.bpe`. Without it there are only words, no ids.
    """

    def __init__(self, folder: str | Path | None = None):
        if folder is not None:
            self.vocab = json.loads((Path(folder) / "encoder_bpe_40000.json").read_text(encoding="utf-8"))
            self.ranks = read_ranks(folder)
        self.spacy = spacy.blank("en")
        self.spacy.max_length = 1 << 30
        self.ids_of_word = cache(self._ids_of_word)

    def words(self, text: str) -> list[str]:
        """Lower-case words; white space is the one word `"\\n"`."""
        doc = self.spacy.tokenizer(standardize(ftfy.fix_text(text)))
        return ["\n" if token.text.isspace() else token.text.lower() for token in doc]

    def encode(self, text: str) -> list[int]:
        return [i for word in self.words(text) for i in self.ids_of_word(word)]

    def _ids_of_word(self, word: str) -> list[int]:
        return [self.vocab.get(part, 0) for part in split_word(word, self.ranks)]
