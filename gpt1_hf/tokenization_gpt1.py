"""GPT-1's tokenizer: clean-up, word splitting and byte-pair encoding, all inside `tokenizer.json`.

GPT-1's text was cleaned by ftfy, standardised, split into words by spaCy, lower-cased, and encoded (paper §4.1). Here
the normalizer does all of that. spaCy splits text before it is lower-cased, so patterns first insert a space at every
cut, and lower-casing comes last. The patterns are generated from spaCy's tables (see `tokenization_rules/`). A saved
tokenizer therefore loads with plain `AutoTokenizer`, without this package. [`GPT1Tokenizer`] adds training, reading
the original vocabulary, readable decoding, and the one step that a file cannot express: ftfy's repair of mojibake, as
the option `fix_text`.

Checkpoints do not carry this file. It imports nothing from the package but the generated tables.
"""

import json
import logging
import re
import struct
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import BatchEncoding, TokenizersBackend
from transformers.utils import cached_file

from .processing_gpt1 import LOCATION
from .tokenization_rules.tables import REPLACED, WORD_CUTS, WORDS


logger = logging.getLogger(__name__)

UNKNOWN = "<unk>"
END_OF_WORD = "</w>"

# The two files' names in OpenAI's release and on the Hub.
VOCABULARY_FILES = (("encoder_bpe_40000.json", "vocab_40000.bpe"), ("vocab.json", "merges.txt"))

# Text that ftfy removes: terminals' escape sequences, control characters, and the rest of an `&` entity.
_REMOVED = "&\\Kamp;|\x1b\\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b\x0e-\x1f\x7f]|" + "|".join(
    map(chr, [*range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)])
)
# Other common HTML entities, and quotes wrongly decoded as Windows-1252 or MacRoman. The MacRoman patterns skip texts
# with a letter that MacRoman lacks, because ftfy repairs a whole text or nothing.
_DECODED = {
    "&lt;": "<",
    "&gt;": ">",
    "&quot;|&#34;|&[lr]dquo;|\u00e2(?:\u20ac[\u0153\x9d]|\x80[\x9c\x9d])|\u201a\u00c4[\u00fa\u00f9]": '"',
    "&apos;|&#39;|&#x27;|&[lr]squo;|\u00e2(?:\u20ac[\u02dc\u2122]|\x80[\x98\x99])|"
    "\u201a\u00c4[\u00f4\u00f2](?<!\u0117.{0,200}\u201a\u00c4.)": "'",
}

# Words that take a separate apostrophe before them (elisions) or after them (pronouns).
_ELIDED = "tis|tisn't|twas|twere|twill|twould|twixt|ud|ee|un|way|cause|bout|gainst|neath|specially|cept|fore|pon"
_PRONOUNS = "i|you|he|she|it|we|they|that|there|these|this|those|what|when|where|who|why|how"
_OPENS = (
    "(?<=[ \"_])(?:(?<![sxz] )(?<! (?:o|t) )(?<! (?:th|wi|an) )(?<!\\w\\win )|(?<='s ))'(?= [\\w$\u00a3\u20ac(\\[\"_])"
)


def _spaces_after_opening(mark: str, opens: str, closes: str) -> str:
    """
    A pattern of the spaces after opening quotation marks: the first in a line, and the first after each closing mark.

    It reads only from left to right, so the beginning of a text stays the same while the text grows token by token.
    """
    before_opening, before_closing = (f"(?:[^{mark}\\n]|(?!{one}){mark})*+" for one in (opens, closes))
    return f"(?:(?:\\A|\\n){before_opening}|\\G{before_closing}{mark}{before_opening}){mark}\\K "


# Spaces to remove for readable text, from text with a space on either side of each word and punctuation mark.
_CLEAN_UP = (
    _spaces_after_opening('"', '(?<= )"(?= )', '(?<= )"(?= )'),
    _spaces_after_opening("_", '(?<=[ "])_(?= )', '(?<=[ "])_(?= )'),
    f"(?<=[ \"_])'\\K (?=(?:{_ELIDED}) )",
    _spaces_after_opening("'", _OPENS, "(?<=[ \"_])'(?= )"),
    "|".join(
        (
            " (?=(?:[,;:!?)\\]}%\"_']|/+|\\.\\.+|--+|'(?:s|re|ve|ll|d|m)|n'?t|ve) )",
            "(?<! \\.) (?=\\. (?!\\. ))",  # an ellipsis of several words keeps its spaces
            "(?<=[\\W_][(\\[{]) |(?<=/) |(?<=--) |(?<=[\"'_]\\.\\.\\.) ",
            # A hyphen. After punctuation it is a dash, and two in a row are not `--`.
            '(?<![,;:.!?"\\-]) (?=- (?!- ))|(?<![,;:.!?"\\-] -)(?<= -) (?!- )',
            "(?<=[\\W_][$\u00a3\u20ac#]) (?=\\d)",
            "(?<=\\d ,) (?=\\d{3}(?!\\d)|\\d{0,2} ?\\z)",
            f"(?<= (?:{_PRONOUNS})) (?=(?:d|ll|m|re|s) (?!- ))",  # as in "wed", which spaCy splits
            "(?<= can) (?=not )|(?<= gon) (?=na )|(?<= got) (?=ta )|(?<= (?:gim|lem)) (?=me )|(?<= y') (?=all )",
        )
    ),
    " (?=\\n)|(?<=\\n) | \\z",
)


def _characters_map(replacements: dict[str, str]) -> bytes:
    """
    A map of characters in SentencePiece's binary form, used by the only normalizer that replaces many in one pass.

    The map starts with the size in bytes of a double-array trie (Aoe, 1989) over UTF-8, in darts-clone's layout. Each
    unit holds the byte that leads to it, and the exclusive or of its index and its children's base. The child of byte
    0 is a leaf with the offset of the NUL-terminated replacement in the text after the trie.
    """
    texts, places, root = bytearray(), dict[str, int](), dict[int, Any]()
    for character, replacement in replacements.items():
        if replacement not in places:
            places[replacement] = len(texts)
            texts += replacement.encode() + b"\0"
        node = root
        for byte in character.encode():
            node = node.setdefault(byte, {})
        node[0] = places[replacement]

    units, taken, lowest = [0] * 256, {0}, 1
    pending = [(root, 0)]
    while pending:
        node, place = pending.pop()
        while lowest in taken:
            lowest += 1
        base = lowest
        while any(base ^ byte in taken for byte in node):
            base += 1
        while base | 255 >= len(units):
            units += [0] * 256  # in whole blocks, so that any byte's lookup stays inside
        taken.update(base ^ byte for byte in node)
        units[place] |= (base ^ place) << 10 | (0 in node) << 8
        for byte, child in node.items():
            units[base ^ byte] = byte or child | 1 << 31
            if byte:
                pending.append((child, base ^ byte))
    return struct.pack(f"<{1 + len(units)}I", 4 * len(units), *units) + bytes(texts)


@cache
def _normalizer() -> normalizers.Normalizer:
    """Convert raw text to lower-case words between spaces. A line break is a word: GPT-1 has a token for it."""
    is_word = re.compile(f"[{WORDS}]")
    characters = {c: c for c in map(chr, [*range(0x21, 0xD800), *range(0xE000, 0x20000)]) if is_word.match(c)}
    characters = {c: is_word.sub(r" \g<0> ", fixed) for c, fixed in {**characters, **REPLACED}.items()}
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(_REMOVED), ""),
            *(normalizers.Replace(Regex(pattern), content) for pattern, content in _DECODED.items()),
            normalizers.Precompiled(_characters_map(characters)),
            normalizers.NFC(),
            normalizers.Strip(),
            normalizers.Prepend(" "),
            normalizers.Replace(Regex(r"\n(?:\s*\n)?"), " \n "),
            *(normalizers.Replace(Regex(pattern), " ") for pattern in WORD_CUTS),
            # A final sigma has its own lower-case letter, but `Lowercase` maps single letters without context.
            normalizers.Replace(Regex(r"\u03a3(?!\p{L})(?<=\p{L}\u03a3)"), "\u03c2"),
            normalizers.Lowercase(),
            # Added tokens are matched in the normalized text: no space around them, one between their words.
            normalizers.Replace(Regex("\\A +| +\\z|(?<= ) +"), ""),
        ]
    )


def _ftfy() -> Callable[[str], str]:
    try:
        from ftfy import fix_text
    except ImportError as error:
        raise ImportError("fix_text=True needs ftfy: pip install 'gpt1_hf[exact]'") from error
    return fix_text


def _without_surrogates(text: str) -> str:
    """Join or replace surrogates as ftfy does, because the library rejects them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _map_texts(function: Callable[[str], str], texts: Any) -> Any:
    """Apply a function to a text or every text in nested lists. The library rejects anything else."""
    if isinstance(texts, str):
        return function(texts)
    if isinstance(texts, list | tuple):
        return type(texts)(_map_texts(function, text) for text in texts)
    return texts


def _alternatives(words: Iterable[str]) -> str:
    """A pattern that matches any of the words, branching letter by letter because there are thousands."""
    branches: dict[str, list[str]] = {}
    for word in words:
        branches.setdefault(word[:1], []).append(word[1:])
    return "|".join(
        re.escape(letter) + (f"(?:{_alternatives(rests)})" if any(rests) else "") for letter, rests in branches.items()
    )


def readable_decoder(vocab: Iterable[str]) -> decoders.Decoder:
    """
    Decoder to readable text, with a space before each word but not before punctuation.

    The text also begins with a space, unless its first token takes none, so that it can continue a prompt. A token
    added to the vocabulary is a whole word, although it does not end in `</w>`.

    Args:
        vocab (`Iterable[str]`):
            Tokens of the vocabulary. In it, a token without `</w>` begins a word; any other token without `</w>` was
            added.
    """
    parts = [token for token in sorted(vocab) if token != UNKNOWN and not token.endswith(END_OF_WORD)]
    return decoders.Sequence(
        [
            decoders.Replace(
                Regex(f"\\A(?!(?:{_alternatives(parts)})\\z)(?m:.+)(?<!{END_OF_WORD})\\K\\z"), END_OF_WORD
            ),
            decoders.Replace(END_OF_WORD, " "),
            decoders.Fuse(),
            decoders.Replace(Regex("\\A"), " "),
            *(decoders.Replace(Regex(pattern), "") for pattern in _CLEAN_UP),
        ]
    )


def _pipeline(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    tokenizer.decoder = readable_decoder(tokenizer.get_vocab())
    return tokenizer


class GPT1Tokenizer(TokenizersBackend):
    """
    GPT-1's tokenization: byte-pair encoding over lower-cased words that end in `</w>` (paper §4.1), with the word
    splitting and clean-up of the original pipeline.

    Base tokenizers add no special tokens to a text and pad with `<unk>` (id 0), so the original vocabulary needs no
    new entries. Text that spells a special token is split like any other text. [`GPT1Processor`] adds the start,
    delimiter and extract tokens for fine-tuning.

    `decode` returns readable text, without spaces before punctuation, inside quotes and brackets, or around hyphens.
    The text starts with a space, so that it can continue a prompt. The order of quotation marks decides which of them
    open a quotation.

    A token from `add_tokens` is always a separate word. It is matched after clean-up and lower-casing, so a token with
    capitals or punctuation needs `AddedToken(..., normalized=False)` for `tokenize` to return it. A token that equals
    a word piece of the vocabulary is that piece, and decoding joins it to the next one.

    Padding and unknown characters share an id, and only an attention mask distinguishes them: `generate(ids)` without
    a mask treats unknown characters as padding, and `DataCollatorForLanguageModeling` excludes both from the loss.

    Args:
        fix_text (`bool`, *optional*, defaults to `False`):
            Run `ftfy.fix_text` on every text first, which also repairs text that was decoded with the wrong encoding
            (needs the `exact` extra). The option is saved, but only this class applies it. It changes the text, so
            `return_offsets_mapping` raises an error.
    """

    @property
    def fix_text(self) -> bool:
        """Whether `ftfy.fix_text` runs on every text first."""
        return bool(self.init_kwargs.get("fix_text", False))

    def prepare(self, text: str) -> str:
        """Prepare a text for `tokenizer.json`: repaired by ftfy with `fix_text`, otherwise without surrogates."""
        return _ftfy()(text) if self.fix_text else _without_surrogates(text)

    def _encode_plus(self, text, text_pair=None, return_offsets_mapping: bool = False, **kwargs) -> BatchEncoding:
        if self.fix_text and return_offsets_mapping:
            raise ValueError(
                "offsets would refer to the text repaired by ftfy, not to the original: load the tokenizer with "
                "fix_text=False for return_offsets_mapping=True"
            )
        return super()._encode_plus(
            text=_map_texts(self.prepare, text),
            text_pair=_map_texts(self.prepare, text_pair),
            return_offsets_mapping=return_offsets_mapping,
            **kwargs,
        )

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs) -> list[str]:
        """Tokens as spelled in the vocabulary. The library spells added tokens as in the text."""
        encoding = self._encode_plus(text, pair, add_special_tokens=add_special_tokens, **kwargs)
        return self.convert_ids_to_tokens(encoding["input_ids"])

    def clean_up_tokenization(self, text: str) -> str:
        """Remove superfluous spaces from text. `decode` already does so."""
        return readable_decoder(()).decode([text + END_OF_WORD]).removeprefix(" ")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int = 40478,
        model_max_length: int = 512,
        show_progress: bool = True,
        length: int | None = None,
    ) -> "GPT1Tokenizer":
        """
        Learn a vocabulary from text.

        Args:
            texts (`Iterable[str]`):
                Texts. They are read once, into a temporary file.
            vocab_size (`int`, *optional*, defaults to 40478):
                Size of the vocabulary: base characters, inside and at the end of a word, and merges.
            model_max_length (`int`, *optional*, defaults to 512):
                Context length of the model, in tokens.
            show_progress (`bool`, *optional*, defaults to `True`):
                Whether to show progress bars.
            length (`int`, *optional*):
                Number of texts, for the progress bar.

        Returns:
            [`GPT1Tokenizer`].

        Raises:
            ValueError: if the texts contain no word, or more characters than the vocabulary has entries. If the texts
                give fewer entries than `vocab_size`, training logs a warning.
        """
        tokenizer = _pipeline(models.BPE(unk_token=UNKNOWN, end_of_word_suffix=END_OF_WORD))
        with TemporaryFile("w+", encoding="utf-8") as copy:
            characters: set[str] = set()
            for text in texts:
                characters.update(unicodedata.normalize("NFC", text))
                copy.write(json.dumps(_without_surrogates(text)) + "\n")
            # Each character is normalized once, because normalizing all text here would take as long as training.
            alphabet = set().union(*map(tokenizer.normalizer.normalize_str, _without_surrogates("".join(characters))))
            if "\n" in characters:
                alphabet.add("\n")  # a line break on its own is stripped
            if not alphabet - {"\n"}:
                raise ValueError("the corpus has no text to learn a vocabulary from")
            copy.seek(0)
            # The trainer numbers word ends in the order of a hash map, and these numbers break ties between merges.
            # Two runs agree only if the word ends are passed as special tokens.
            word_ends = [character + END_OF_WORD for character in sorted(alphabet - {" "})]
            trainer = trainers.BpeTrainer(
                vocab_size=vocab_size,
                special_tokens=[UNKNOWN, *word_ends],
                end_of_word_suffix=END_OF_WORD,
                show_progress=show_progress,
            )
            tokenizer.train_from_iterator(map(json.loads, copy), trainer, length=length)
        size = tokenizer.get_vocab_size()
        if size > vocab_size:
            raise ValueError(
                f"the base characters of the corpus need {size} entries, more than vocab_size={vocab_size}: use "
                f"cleaner text, or vocab_size={size}"
            )
        if size < vocab_size:
            logger.warning(f"the corpus gives only {size} entries, fewer than vocab_size={vocab_size}")
        return cls._from_pipeline(_pipeline(tokenizer.model), model_max_length)  # without the trainer's special tokens

    @classmethod
    def from_original(cls, source: str | Path, model_max_length: int = 512, **kwargs) -> "GPT1Tokenizer":
        """
        Read OpenAI's released vocabulary.

        Args:
            source (`str` or `Path`):
                Folder or Hub id with `encoder_bpe_40000.json` and `vocab_40000.bpe`, or with `vocab.json` and
                `merges.txt`, their names on the Hub (`openai-community/openai-gpt`).
            model_max_length (`int`, *optional*, defaults to 512):
                Context length of the model, in tokens.
            kwargs:
                Further arguments of the class, such as `fix_text`.

        Raises:
            FileNotFoundError: if the folder does not exist or lacks one of the two files.
            OSError: if the Hub has no such repository or cannot be reached.
        """
        if Path(source).is_dir():
            pairs = [tuple(Path(source) / name for name in names) for names in VOCABULARY_FILES]
            found = next((pair for pair in pairs if all(file.is_file() for file in pair)), None)
            if found is None:
                names = ", nor ".join(" and ".join(names) for names in VOCABULARY_FILES)
                raise FileNotFoundError(f"the folder {str(source)!r} has no vocabulary: it contains neither {names}")
            vocabulary, merges_file = found
        else:
            try:
                validate_repo_id(str(source))
                vocabulary, merges_file = (Path(cached_file(str(source), name)) for name in VOCABULARY_FILES[1])
            except HFValidationError as error:
                raise FileNotFoundError(f"{str(source)!r} is neither an existing folder nor a Hub id") from error
            except OSError as error:
                files, reason = " and ".join(VOCABULARY_FILES[1]), str(error).strip().split("\n")[0].rstrip(".")
                raise OSError(
                    f"{str(source)!r} is not a folder, and the Hub did not return {files} for this id: {reason}"
                ) from error
        vocab = json.loads(vocabulary.read_text(encoding="utf-8"))
        lines = merges_file.read_text(encoding="utf-8").split("\n")
        merges = [(left, right) for left, right in map(str.split, filter(None, lines[1:]))]  # after a version header
        model = models.BPE(vocab=vocab, merges=merges, unk_token=UNKNOWN, end_of_word_suffix=END_OF_WORD)
        return cls._from_pipeline(_pipeline(model), model_max_length, **kwargs)

    @classmethod
    def _from_pipeline(cls, tokenizer: Tokenizer, model_max_length: int, **kwargs) -> "GPT1Tokenizer":
        return cls(
            tokenizer_object=tokenizer,
            unk_token=UNKNOWN,
            pad_token=UNKNOWN,
            split_special_tokens=True,
            model_input_names=["input_ids", "attention_mask"],
            model_max_length=model_max_length,
            **kwargs,
        )

    def _save_pretrained(self, save_directory, file_names, legacy_format=None, filename_prefix=None):
        # The library's own class reads the file without this package.
        config_file = Path(file_names[0])
        config = json.loads(config_file.read_text(encoding="utf-8"))
        config["tokenizer_class"] = TokenizersBackend.__name__
        for name in LOCATION:
            config.pop(name, None)
        config_file.write_text(
            json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        return super()._save_pretrained(save_directory, file_names, legacy_format, filename_prefix)


__all__ = ["GPT1Tokenizer"]
