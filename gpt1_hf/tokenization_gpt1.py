"""GPT-1's tokenizer: clean-up, word splitting and byte-pair encoding, all inside `tokenizer.json`.

A saved tokenizer therefore loads with plain `AutoTokenizer` and needs no code of ours; [`GPT1Tokenizer`] only adds the
ways to make one: training on text, and reading the original release's vocabulary.

This file travels to the Hub beside a checkpoint; it imports nothing of the package but its siblings.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import TokenizersBackend


UNKNOWN = "<unk>"
END_OF_WORD = "</w>"

# Contractions, runs of one punctuation mark, and single marks are words of their own.
_WORD_PARTS = Regex(
    r"n't(?!\w)|'(?:s|re|ve|ll|d|m)(?!\w)|([-~!\";?+,)(/*\[\]}{|_.])\1*|[^\w\s]",
)


def _normalizer() -> normalizers.Normalizer:
    """Released code's `text_standardize` and lower-casing, and of ftfy's fixes the straight quotes and NFC."""
    return normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex("[\u2018\u2019\u00b4]"), "'"),
            normalizers.Replace(Regex("[\u201c\u201d]"), '"'),
            normalizers.Replace(Regex("[\u2013\u2014\u2015]"), "-"),
            normalizers.Replace("\u2026", "..."),
            normalizers.Replace(Regex(r"\s*\n\s*"), "\n"),
            normalizers.Replace(Regex(r"[^\S\n]+"), " "),
            normalizers.Strip(),
            normalizers.Lowercase(),
        ]
    )


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Text -> words. A line break is a word: GPT-1 has a token for it."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), behavior="isolated"),
            pre_tokenizers.Split(" ", behavior="removed"),
            pre_tokenizers.Split(_WORD_PARTS, behavior="isolated"),
        ]
    )


def _pipeline(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix=END_OF_WORD)
    return tokenizer


class GPT1Tokenizer(TokenizersBackend):
    """
    Byte-pair encoding over lower-cased words that end in `</w>` (paper §4.1).

    Base tokenizers add no special token to a text, and pad with `<unk>` (id 0), so that the original vocabulary needs
    no new entry. Text that happens to spell a special token is split like any other. [`GPT1Processor`] adds the start,
    delimiter and extract tokens that fine-tuning needs.
    """

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
                Texts, read once, by way of a temporary file.
            vocab_size (`int`, *optional*, defaults to 40478):
                Size of the vocabulary: base characters, inside and at the end of a word, and merges.
            model_max_length (`int`, *optional*, defaults to 512):
                Context length of the model it is meant for, in tokens.
            show_progress (`bool`, *optional*, defaults to `True`):
                Whether to show progress bars.
            length (`int`, *optional*):
                Number of texts, for the progress bar.

        Returns:
            [`GPT1Tokenizer`].

        Raises:
            ValueError: if the texts hold no word.
        """
        tokenizer = _pipeline(models.BPE(unk_token=UNKNOWN, end_of_word_suffix=END_OF_WORD))
        with TemporaryFile("w+", encoding="utf-8") as copy:
            alphabet: set[str] = set()
            for text in texts:
                alphabet.update(tokenizer.normalizer.normalize_str(text))
                copy.write(json.dumps(text) + "\n")
            if not alphabet:
                raise ValueError("the corpus has no text to learn a vocabulary from")
            copy.seek(0)
            # The trainer numbers word ends in the order of a hash map, and the numbers break ties between merges:
            # only word ends that it is given beforehand make two runs agree.
            word_ends = [character + END_OF_WORD for character in sorted(alphabet - {" "})]
            trainer = trainers.BpeTrainer(
                vocab_size=vocab_size,
                special_tokens=[UNKNOWN, *word_ends],
                end_of_word_suffix=END_OF_WORD,
                show_progress=show_progress,
            )
            tokenizer.train_from_iterator(map(json.loads, copy), trainer, length=length)
        return cls._from_pipeline(_pipeline(tokenizer.model), model_max_length)  # without the trainer's special tokens

    @classmethod
    def from_original(cls, folder: str | Path, model_max_length: int = 512) -> "GPT1Tokenizer":
        """
        Read OpenAI's released vocabulary.

        Args:
            folder (`str` or `Path`):
                Folder with `encoder_bpe_40000.json` and `vocab_40000.bpe`.
            model_max_length (`int`, *optional*, defaults to 512):
                Context length of the model it is meant for, in tokens.

        Raises:
            FileNotFoundError: if one of the two files is missing.
        """
        vocab = json.loads((Path(folder) / "encoder_bpe_40000.json").read_text(encoding="utf-8"))
        lines = (Path(folder) / "vocab_40000.bpe").read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines[1:] if line]  # the first line is a version header
        model = models.BPE(vocab=vocab, merges=merges, unk_token=UNKNOWN, end_of_word_suffix=END_OF_WORD)
        return cls._from_pipeline(_pipeline(model), model_max_length)

    @classmethod
    def _from_pipeline(cls, tokenizer: Tokenizer, model_max_length: int) -> "GPT1Tokenizer":
        return cls(
            tokenizer_object=tokenizer,
            unk_token=UNKNOWN,
            pad_token=UNKNOWN,
            split_special_tokens=True,
            model_input_names=["input_ids", "attention_mask"],
            model_max_length=model_max_length,
        )

    def _save_pretrained(self, save_directory, file_names, legacy_format=None, filename_prefix=None):
        # The library's own class reads the file as it is, in a process that has never heard of this package.
        config_file = Path(file_names[0])
        config = json.loads(config_file.read_text(encoding="utf-8"))
        config["tokenizer_class"] = TokenizersBackend.__name__
        config_file.write_text(
            json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        return super()._save_pretrained(save_directory, file_names, legacy_format, filename_prefix)


__all__ = ["GPT1Tokenizer"]
