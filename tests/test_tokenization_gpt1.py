"""The tokenizer: training, the original vocabulary, clean-up, word splitting, and files that need no code of ours."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.byte_pairs import read_ranks, split_word
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, OpenAIGPTTokenizer, TextStreamer

from gpt1_hf import GPT1Processor, GPT1Tokenizer
from gpt1_hf.checkpoints.loading import open_tokenizer
from gpt1_hf.resources import model_path


SPECIAL_SPELLINGS = ["<unk>", "_start_", "_delimiter_", "_classify_"]

ODD_TEXTS = {
    "nothing": "",
    "white space only": " \t\n\u00a0\u3000 ",
    "control characters": "a\x00b\x07c\x1b[0m\x7f",
    "zero-width and byte-order marks": "a\u200bb\u200dc\ufeffd",
    "emoji": "😀👨‍👩‍👧🏳️‍🌈",
    "right to left": "\u202eשלום مرحبا\u202c",
    "ideographs": "日本語テキスト",
    "stacked combining marks": "z\u0351\u0363\u0350a\u0327\u0301\u0301lgo",
    "combining mark after nothing": "\u0301",
    "beyond the basic plane": "𝔊𝔬𝔱𝔥𝔦𝔠 𐍈",
    "non-characters and private use": "\ufffe\uffff\ue000\U0010ffff",
    "lower-casing that lengthens": "İSTANBUL ẞ ΑΣ",
    "other line breaks": "a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h",
    "end-of-word suffix": "ca</w>ptain </w>",
    "a very long word": "a" * 5000,
}


@pytest.fixture(scope="module")
def spelling_tokenizer(texts) -> GPT1Tokenizer:
    """A tokenizer that knows the characters of every special token, so that none of them becomes unknown."""
    spelled = ["\n\n".join([*SPECIAL_SPELLINGS, "\" - ' ! ? ... é , * ( )", text]) for text in texts]
    return GPT1Tokenizer.train(spelled, vocab_size=210, model_max_length=64, show_progress=False)


@pytest.fixture(scope="module")
def original_folder(data_dir) -> Path:
    return Path(data_dir) / "openai-community" / "openai-gpt"


@pytest.fixture(scope="module")
def original(original_folder) -> GPT1Tokenizer:
    return GPT1Tokenizer.from_original(original_folder)


def pieces(tokenizer, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def words(tokenizer, text: str) -> list[str]:
    """The words that a text is split into, independent of the vocabulary."""
    backend = tokenizer.backend_tokenizer
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))]


class TestTraining:
    @pytest.mark.parametrize("vocab_size", [60, 160])
    def test_the_vocabulary_has_the_size_asked_for(self, texts, vocab_size):
        tokenizer = GPT1Tokenizer.train(texts, vocab_size=vocab_size, show_progress=False)
        assert len(tokenizer) == tokenizer.vocab_size == vocab_size
        assert sorted(tokenizer.get_vocab().values()) == list(range(vocab_size))

    def test_the_same_texts_give_the_same_tokenizer(self, texts):
        # Not the shared one: a tokenizer keeps the truncation that it was last called with.
        one, other = (
            GPT1Tokenizer.train(iter(texts), vocab_size=160, model_max_length=64, show_progress=False) for _ in "ab"
        )
        assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()

    def test_texts_are_read_once_from_any_iterable(self, texts, tokenizer):
        generated = GPT1Tokenizer.train((t for t in texts), vocab_size=160, show_progress=False, length=len(texts))
        assert generated.get_vocab() == tokenizer.get_vocab()

    @pytest.mark.parametrize("nothing", [[], [""], ["  ", "\n \n"]], ids=["no text", "empty text", "white space"])
    def test_a_corpus_without_words_is_refused(self, nothing):
        with pytest.raises(ValueError, match="no text"):
            GPT1Tokenizer.train(nothing, vocab_size=50, show_progress=False)

    def test_texts_with_line_breaks_give_a_line_break_token(self, spelling_tokenizer):
        assert "\n</w>" in spelling_tokenizer.get_vocab()
        assert "\n</w>" in pieces(spelling_tokenizer, "the lady\n\nthe captain")

    def test_texts_without_line_breaks_give_none(self, tokenizer):
        assert "\n</w>" not in tokenizer.get_vocab()

    def test_no_token_spans_two_words(self, spelling_tokenizer):
        assert not [token for token in spelling_tokenizer.get_vocab() if " " in token or "</w>" in token[:-4]]

    def test_a_line_break_is_never_merged_with_a_word(self, spelling_tokenizer):
        assert {token for token in spelling_tokenizer.get_vocab() if "\n" in token} <= {"\n", "\n</w>"}

    def test_it_is_laid_out_as_the_original_and_loads_in_transformers_own_class(self, tokenizer, texts, tmp_path):
        tokenizer.save_pretrained(tmp_path)
        merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
        base = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])][: -len(merges)]
        assert base[0] == "<unk>"
        assert all(len(token.removesuffix("</w>")) == 1 for token in base[1:])
        theirs = OpenAIGPTTokenizer.from_pretrained(tmp_path)
        assert theirs.get_vocab() == tokenizer.get_vocab()
        assert theirs("the old lady")["input_ids"] == tokenizer("the old lady")["input_ids"]

    def test_a_size_below_the_base_characters_is_refused(self, texts):
        with pytest.raises(ValueError, match="base characters.*vocab_size=20.*or vocab_size=[0-9]+") as refused:
            GPT1Tokenizer.train(texts, vocab_size=20, show_progress=False)
        possible = int(str(refused.value).rsplit("=")[-1])
        assert len(GPT1Tokenizer.train(texts, vocab_size=possible, show_progress=False)) == possible

    def test_a_corpus_with_fewer_entries_gives_a_warning(self, texts, caplog):
        size = len(GPT1Tokenizer.train(texts, vocab_size=40478, show_progress=False))
        assert [record.message for record in caplog.records] == [
            f"the corpus gives only {size} entries, fewer than vocab_size=40478"
        ]

    def test_the_papers_size_is_base_characters_and_40000_merges(self):
        rng = random.Random(0)
        texts = [" ".join("".join(rng.choices("abcdefgh", k=12)) for _ in range(1000)) for _ in range(16)]
        vocab_size = 1 + 8 + 8 + 40000  # unknown, letters inside and at the end of a word, merges
        tokenizer = GPT1Tokenizer.train(texts, vocab_size=vocab_size, show_progress=False)
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        assert len(tokenizer) == vocab_size and len(model["merges"]) == 40000
        merged = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])][-40000:]
        assert merged == ["".join(pair) for pair in model["merges"]]

    def test_the_context_length_is_kept(self, tokenizer):
        assert tokenizer.model_max_length == 64


class TestOriginalVocabulary:
    def test_it_has_the_released_entries(self, original, original_folder):
        vocab = json.loads((original_folder / "encoder_bpe_40000.json").read_text(encoding="utf-8"))
        assert len(original) == 40478
        assert original.get_vocab() == vocab

    def test_known_words_have_the_ids_of_the_json_file(self, original, original_folder):
        vocab = json.loads((original_folder / "encoder_bpe_40000.json").read_text(encoding="utf-8"))
        text = 'The captain smiled, "I don\'t know."\nShe wept...'
        tokens = 'the captain smiled , " i do n\'t know . " \n she wept ...'.split(" ")
        assert original(text)["input_ids"] == [vocab[token + "</w>"] for token in tokens]

    def test_rare_words_are_split_as_the_released_code_splits_them(self, original, original_folder):
        ranks = read_ranks(original_folder)
        for word in ("antidisestablishmentarianism", "zyxwvutsrq", "xylophonists", "1729", "naïveté", "aaaaaaaaaaa"):
            assert pieces(original, word) == split_word(word, ranks)

    def test_the_processor_gives_its_special_tokens_the_released_ids(self, original):
        tokenizer = GPT1Processor(original).tokenizer
        assert tokenizer.convert_tokens_to_ids(["_start_", "_delimiter_", "_classify_"]) == [40478, 40479, 40480]
        assert (tokenizer.bos_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id) == (40478, 40479, 40480)
        assert len(tokenizer) == 40481

    def test_the_hubs_names_for_the_two_files_are_read_too(self, original, original_folder, tmp_path):
        for theirs, hubs in (("encoder_bpe_40000.json", "vocab.json"), ("vocab_40000.bpe", "merges.txt")):
            (tmp_path / hubs).symlink_to((original_folder / theirs).resolve())
        converted = GPT1Tokenizer.from_original(tmp_path)
        assert converted.backend_tokenizer.to_str() == original.backend_tokenizer.to_str()

    def test_missing_files_are_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="encoder_bpe_40000.json"):
            GPT1Tokenizer.from_original(tmp_path)


class Hub(BaseHTTPRequestHandler):
    """Answers like huggingface.co for the two files of one repository."""

    files: dict[str, bytes] = {}
    asked: list[str] = []

    def do_HEAD(self):
        self.asked.append(f"{self.command} {self.path}")
        content = self.files.get(self.path)
        self.send_response(200 if content is not None else 404)
        if content is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha1(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        return content

    def do_GET(self):
        self.wfile.write(self.do_HEAD() or b"")

    def log_message(self, *args):
        pass


class TestHub:
    @pytest.fixture
    def convert(self, tmp_path):
        """Run `gpt1 tokenizer convert SOURCE` in a separate process, with the local Hub."""
        vocab = {token: i for i, token in enumerate(["<unk>", "h", "i", "h</w>", "i</w>", "hi</w>"])}
        path = "/someone/gpt/resolve/main"
        Hub.files = {
            f"{path}/vocab.json": json.dumps(vocab).encode(),
            f"{path}/merges.txt": b"#version: 0.2\nh i</w>\n",
        }
        Hub.asked = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def run(source: str) -> subprocess.CompletedProcess:
            environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
            environment |= {
                "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
                "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_XET": "1",
            }
            command = [sys.executable, "-m", "gpt1_hf", "tokenizer", "convert", source]
            command += ["--output_dir", str(tmp_path / "out")]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

        yield run
        server.shutdown()
        thread.join()
        server.server_close()

    def test_a_vocabulary_is_read_from_a_hub_id(self, convert, tmp_path):
        done = convert("someone/gpt")
        assert done.returncode == 0, done.stderr
        assert {f"GET {path}" for path in Hub.files} <= set(Hub.asked)
        assert pieces(AutoTokenizer.from_pretrained(tmp_path / "out"), "Hi h i") == ["hi</w>", "h</w>", "i</w>"]

    def test_an_id_that_the_hub_does_not_know_is_one_sentence(self, convert):
        done = convert("someone/else")
        assert done.returncode == 1 and Hub.asked
        assert "Traceback" not in done.stderr
        *_, message = done.stderr.splitlines()  # before it, torchao may print something about its kernels
        assert "'someone/else' is not a folder, and the Hub did not return vocab.json and merges.txt" in message

    def test_a_hub_that_is_out_of_reach_is_one_sentence(self):
        with pytest.raises(OSError, match="'someone/gpt' is not a folder, and the Hub did not return .* connect"):
            GPT1Tokenizer.from_original("someone/gpt")  # offline, see conftest.py

    def test_a_folder_that_is_not_there_is_one_sentence(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="^'.*/missing' is neither an existing folder nor a Hub id$"):
            GPT1Tokenizer.from_original(tmp_path / "missing")


class TestSavedFiles:
    def test_the_file_alone_is_the_whole_tokenizer(self, spelling_tokenizer, tmp_path):
        spelling_tokenizer.save_pretrained(tmp_path)
        alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        alone.encode_special_tokens = True
        for text in ("The lady's  letter\u2026\n\n\u201cDon\u2019t,\u201d he said", *ODD_TEXTS.values()):
            assert alone.encode(text).ids == spelling_tokenizer(text)["input_ids"]

    def test_the_saved_class_is_the_librarys_own(self, tokenizer, tmp_path):
        tokenizer.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert config["tokenizer_class"] == "TokenizersBackend"
        assert "auto_map" not in config
        assert (tmp_path / "tokenizer.json").is_file()

    def test_reloading_here_changes_nothing(self, spelling_tokenizer, tmp_path):
        spelling_tokenizer.save_pretrained(tmp_path)
        for reloaded in (AutoTokenizer.from_pretrained(tmp_path), GPT1Tokenizer.from_pretrained(tmp_path)):
            assert reloaded.backend_tokenizer.to_str() == spelling_tokenizer.backend_tokenizer.to_str()
            assert reloaded.model_max_length == 64
            assert reloaded.padding_side == "right"
            for text in (*SPECIAL_SPELLINGS, *ODD_TEXTS.values()):
                assert reloaded(text)["input_ids"] == spelling_tokenizer(text)["input_ids"]

    def test_a_process_without_this_package_reads_the_same_ids(
        self, spelling_tokenizer, base_model, tokenizer, tmp_path
    ):
        spelling_tokenizer.save_pretrained(tmp_path / "alone")
        GPT1Processor(spelling_tokenizer, "entailment").save_pretrained(tmp_path / "task")
        texts = ["The lady's  letter…\n\n“Don’t,” he said", *SPECIAL_SPELLINGS, *ODD_TEXTS.values()]
        (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        program = """
import json, sys
sys.modules["gpt1_hf"] = None  # any import of it fails
from transformers import AutoTokenizer
texts = json.load(open("texts.json", encoding="utf-8"))
loaded = [AutoTokenizer.from_pretrained(folder) for folder in sys.argv[1:]]
ids = [tokenizer(texts)["input_ids"] for tokenizer in loaded]
json.dump({"classes": [type(tokenizer).__name__ for tokenizer in loaded], "ids": ids}, open("answer.json", "w"))
"""
        # A folder with a tokenizer only, one with a model beside it, and one with the task's template.
        folders = [str(tmp_path / "alone"), base_model, str(tmp_path / "task")]
        command = [sys.executable, "-c", program, *folders]
        done = subprocess.run(
            command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads((tmp_path / "answer.json").read_text())
        assert answer["classes"] == ["TokenizersBackend"] * 3
        task = GPT1Processor(spelling_tokenizer, "entailment").tokenizer
        assert answer["ids"] == [t(texts)["input_ids"] for t in (spelling_tokenizer, tokenizer, task)]


class TestSpecialTokens:
    def test_a_text_is_encoded_without_any(self, tokenizer):
        assert tokenizer("the lady")["input_ids"] == tokenizer("the lady", add_special_tokens=False)["input_ids"]
        assert pieces(tokenizer, "the lady") == ["the</w>", "lady</w>"]
        assert tokenizer("the", "lady")["input_ids"] == tokenizer("the lady")["input_ids"]
        assert tokenizer.num_special_tokens_to_add() == tokenizer.num_special_tokens_to_add(pair=True) == 0

    def test_unknown_and_padding_token_share_id_0(self, tokenizer):
        assert (tokenizer.unk_token, tokenizer.pad_token) == ("<unk>", "<unk>")
        assert tokenizer.unk_token_id == tokenizer.pad_token_id == 0
        assert (tokenizer.bos_token, tokenizer.sep_token, tokenizer.cls_token) == (None, None, None)

    @pytest.mark.parametrize("spelling", SPECIAL_SPELLINGS)
    def test_text_that_spells_one_is_split_like_any_other(self, spelling_tokenizer, tmp_path, spelling):
        processor = GPT1Processor(spelling_tokenizer)
        processor.save_pretrained(tmp_path)
        reloaded = AutoTokenizer.from_pretrained(tmp_path)
        special = {0, *range(len(spelling_tokenizer), len(processor.tokenizer))}
        assert len(special) == 4
        for text in (spelling, f"the {spelling} lady", f"the{spelling}lady", spelling * 3):
            ids = spelling_tokenizer(text)["input_ids"]
            assert ids and not special & set(ids)
            sequence = [processor.tokenizer.bos_token_id, *ids, processor.tokenizer.cls_token_id]
            assert processor(text=text)["input_ids"] == reloaded(text)["input_ids"] == sequence

    def test_the_original_vocabulary_splits_them_too(self, original):
        assert pieces(original, "<unk>") == ["<</w>", "unk</w>", "></w>"]
        assert pieces(original, "_start_") == ["_</w>", "start</w>", "_</w>"]


class TestCleanUp:
    @pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
    def test_odd_text_gives_ids_of_the_vocabulary(self, spelling_tokenizer, text):
        ids = spelling_tokenizer(text)["input_ids"]
        assert all(0 <= i < len(spelling_tokenizer) for i in ids)
        assert bool(ids) == bool(text.strip())
        assert isinstance(spelling_tokenizer.decode(ids), str)

    @pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
    def test_odd_text_gives_no_error_in_the_original_vocabulary(self, original, text):
        assert all(0 <= i < 40478 for i in original(text)["input_ids"])

    @pytest.mark.parametrize(
        ("text", "plain"),
        [
            ("The LADY wept", "the lady wept"),
            ("\u201cthe lady\u201d", '"the lady"'),
            ("\u2018the lady\u2019s", "'the lady's"),
            ("don\u2019t don\u00b4t", "don't don't"),
            ("the lady \u2014 wept", "the lady - wept"),
            ("the lady\u2013wept\u2015", "the lady-wept-"),
            ("the lady\u2026", "the lady..."),
            ("cafe\u0301", "caf\u00e9"),
            ("  the \t lady\u00a0\u3000wept  ", "the lady wept"),
            ("the lady\n\n \t\n wept", "the lady\nwept"),
            ("the lady  \r\n  wept\r\n", "the lady\nwept"),
            ("\n\nthe lady", "the lady"),
            ("the\rlady\x0cwept", "the\nlady wept"),
            ("the \ufb01re \uff21\uff22\uff0c\u3000x", "the fire AB, x"),
            ("the\x1b[31m la\x00dy\ufeff", "the lady"),
            ("Smith &amp; Sons &quot;Ltd.&quot;", 'Smith & Sons "Ltd."'),
            ("the lady\u00e2\u20ac\u2122s", "the lady's"),
        ],
    )
    def test_variants_of_a_text_are_read_alike(self, spelling_tokenizer, text, plain):
        assert words(spelling_tokenizer, text) == words(spelling_tokenizer, plain)
        assert spelling_tokenizer(text)["input_ids"] == spelling_tokenizer(plain)["input_ids"]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("don't, can't.", ["do", "n't", ",", "ca", "n't", "."]),
            ("he's we're I've", ["he", "'s", "we", "'re", "i", "'ve"]),
            ("she'll I'd I'm", ["she", "'ll", "i", "'d", "i", "'m"]),
            ("'em 'twas 'the end'", ["'em", "'", "twas", "'", "the", "end", "'"]),
            ("what?! no!!!", ["what", "?", "!", "no", "!", "!", "!"]),
            ("wait... -- ((x))", ["wait", "...", "--", "(", "(", "x", ")", ")"]),
            ("a@b #1 £5", ["a@b", "#", "1", "£", "5"]),
            ("Mrs. O'Dell came at 5p.m.", ["mrs.", "o'dell", "came", "at", "5", "p.m."]),
            ("Don't DON'T cannot wed", ["do", "n't", "don't", "can", "not", "we", "d"]),
            ("end.Then a.b www.Ab.com 5km.", ["end", ".", "then", "a.b", "www.ab.com", "5", "km", "."]),
            ("''Tis nothin'.", ["''", "tis", "nothin'", "."]),
            ("one\n\ntwo", ["one", "\n", "two"]),
            ("snake_case", ["snake", "_", "case"]),
        ],
    )
    def test_words_and_punctuation_are_separated(self, tokenizer, text, expected):
        assert words(tokenizer, text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "The lady's letter (the old one), don't you know: 5% of it... isn't here!\n\n\"No,\" she'll say.",
            "\ufb01ne \u2014 \u201cquoted\u201d\u2026 caf\u00e9 na\u00efve \u0130x",
        ],
    )
    def test_offsets_point_into_the_text_as_it_was_given(self, original, text):
        encoding = original(text, return_offsets_mapping=True)
        offsets = encoding["offset_mapping"]
        assert all(0 <= start < end <= len(text) for start, end in offsets)
        assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)
        for token, (start, end) in zip(encoding.tokens(), offsets, strict=True):
            piece = token.removesuffix("</w>")
            if text[start:end].isascii():
                assert text[start:end].lower().strip(" ") == piece or text[start:end].isspace()
        covered = {place for start, end in offsets for place in range(start, end)}
        assert not [place for place, character in enumerate(text) if character.isalnum() and place not in covered]

    def test_offsets_of_what_the_clean_up_changed(self, original):
        text = "\u201cDon\u2019t\u2026\u201d  cafe\u0301 \u2014 x"
        encoding = original(text, return_offsets_mapping=True)
        assert encoding.tokens() == [f"{word}</w>" for word in ('"', "do", "n't", "...", '"', "caf\u00e9", "-", "x")]
        spans = [text[start:end] for start, end in encoding["offset_mapping"]]
        assert spans == ["\u201c", "Do", "n\u2019t", "\u2026", "\u201d", "cafe", "\u2014", "x"]

    def test_halves_of_characters_are_no_error(self, spelling_tokenizer):
        together, alone = spelling_tokenizer("the \ud83d\ude00"), spelling_tokenizer(["the \udc80", "the \ufffd"])
        assert together["input_ids"] == spelling_tokenizer("the \U0001f600")["input_ids"]
        assert alone["input_ids"][0] == alone["input_ids"][1]

    @pytest.mark.parametrize("mark", [*'.-!:,/"&<*_~|#', "...", "a", "'"])
    def test_one_long_run_is_encoded_whole(self, original, mark):
        assert original(f"the{mark * 60_000}end", verbose=False)["input_ids"]
        ids = original(f"the {mark * 60_000} end", verbose=False)["input_ids"]
        the, end = (original.convert_tokens_to_ids(f"{word}</w>") for word in ("the", "end"))
        assert (ids[0], ids[-1]) == (the, end)
        assert "".join(original.convert_ids_to_tokens(ids[1:-1])).replace("</w>", "") == mark * 60_000

    @pytest.mark.parametrize(("space", "between"), [(" ", []), ("\n", ["\n</w>"]), (" \n", ["\n</w>"]), ("\t", [])])
    def test_one_long_white_space_is_at_most_a_line_break(self, original, space, between):
        assert pieces(original, f"the{space * 60_000}end") == ["the</w>", *between, "end</w>"]
        assert pieces(original, space * 60_000) == []


READABLE = [
    "the lady's letter (the old one), don't you know: 5% of it... isn't here!\nshe'll say so.",
    "he said (quietly): \"no; it's mine...\" then they'll go.",
    "he said, \"she told me 'no way!' and left.\"",
    "\"'yes,' he said, 'i know,'\" she went on.",
    '"a" "b" ("c d"), ["e"].\n"f," said g.\n\'h!\' said i.',
    "it's a $5.00 'test' (really); £5, #3 and 1/2 of 3.14%",
    "on may 5, 1870, he had 1,500 men and $1,000,000.50",
    "the boys' hats, the ladies' maids and mr. o'dell's dog's bone",
    "'tis true, 'twas so; give 'em rock 'n' roll in the '90s",
    "[one (two {three})] four? five?! six!!!",
    "a well-known mother-in-law--or so he said--came to-morrow",
    'he stopped. - "and then?" - it was late.',
    'wait... what?! "...and so on..."',
    "then . . . nothing",
    "_word_, and _two words_.",
    "i cannot, won't, couldn't've; theyd wed; we're gonna go, y'all",
    "o'clock ma'am, o' the th' old; nothin' but goin' on",
    "a & b * c + d = e; a@b.com, http://www.x.com/y",
]


class TestDecoding:
    @pytest.mark.parametrize("text", READABLE)
    def test_text_is_readable_however_it_is_loaded(self, original, tmp_path, text):
        original.save_pretrained(tmp_path)
        ids = original(text)["input_ids"]
        assert (
            " ".join(original.convert_ids_to_tokens(ids)).replace("</w> ", " ") != text
        )  # it is no text of words only
        for tokenizer in (original, *(c.from_pretrained(tmp_path) for c in (AutoTokenizer, GPT1Tokenizer))):
            for clean_up in (None, True, False):
                assert tokenizer.decode(ids, clean_up_tokenization_spaces=clean_up) == " " + text
            assert tokenizer.batch_decode([ids, ids], skip_special_tokens=True) == [" " + text] * 2
            assert tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(ids)) == " " + text
            assert tokenizer(text)["input_ids"] == ids
        words = " ".join(original.convert_ids_to_tokens(ids)).replace(" ", "").replace("</w>", " ").strip()
        assert original.clean_up_tokenization(words) == original.clean_up_tokenization(text) == text

    @pytest.mark.parametrize("text", READABLE)
    def test_streamed_text_equals_the_final_text(self, original, text, capsys):
        streamer = TextStreamer(original)
        (ids,) = original(text, return_tensors="pt")["input_ids"]
        streamer.put(ids[:1])
        for token in ids[1:]:
            streamer.put(token[None])
        streamer.end()
        # After a line break the streamer starts over, with a space.
        assert capsys.readouterr().out.replace("\n ", "\n") == f" {text}\n"

    def test_new_text_goes_after_a_prompt(self, original):
        def decode(text):
            return original.decode(original(text)["input_ids"])

        for text, new in {"put": " put", "'s": "'s", ", and": ", and", "- known": "-known", "(so)": " (so)"}.items():
            assert decode(text) == new
        assert decode("") == original.decode([]) == ""
        assert decode("the lady").split(" ") == ["", *(decode(word)[1:] for word in ("the", "lady"))]

    def test_earlier_folders_load_and_the_package_decodes_them_readably(self, original, tmp_path):
        original.save_pretrained(tmp_path)
        for name, changes in (
            ("tokenizer", {"decoder": {"type": "BPEDecoder", "suffix": "</w>"}}),
            ("tokenizer_config", {"clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True}),
        ):
            file = tmp_path / f"{name}.json"
            content = json.loads(file.read_text(encoding="utf-8")) | changes
            if name == "tokenizer":
                assert content["normalizer"]["normalizers"].pop()["type"] == "Replace"
            file.write_text(json.dumps(content), encoding="utf-8")
        ids = original(READABLE[0])["input_ids"]
        assert GPT1Tokenizer.from_pretrained(tmp_path).decode(ids, clean_up_tokenization_spaces=True) == READABLE[0]
        assert open_tokenizer(str(tmp_path)).decode(ids) == " " + READABLE[0]
        assert all(t(READABLE[0])["input_ids"] == ids for t in (original, AutoTokenizer.from_pretrained(tmp_path)))

    def test_the_librarys_own_class_is_decoded_readably_by_the_package(self, original, tmp_path):
        original.save_pretrained(tmp_path / "ours")
        OpenAIGPTTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
        theirs = open_tokenizer(str(tmp_path / "theirs"))
        assert theirs.decode(original(READABLE[0])["input_ids"]) == " " + READABLE[0]

    def test_held_out_novels(self, data_dir, pytestconfig):
        """
        96.1 % of paragraphs are restored letter by letter, and all but one of ten thousand encode to the same ids.
        """
        pandas, ftfy = pytest.importorskip("pandas"), pytest.importorskip("ftfy")
        tokenizer = AutoTokenizer.from_pretrained(model_path("gpt1-tiny"), trust_remote_code=False)
        novels = pandas.read_parquet(Path(data_dir) / "books" / "validation-00000-of-00001.parquet")["text"]
        paragraphs = [part for novel in novels for part in novel.split("\n\n") if part.strip()][::5]
        replaced = [ftfy.fix_text(part).lower() for part in paragraphs]
        for found, content in (("[\u2013-\u2015]", "-"), ("\u2026", "..."), ("\u00b4", "'")):
            replaced = [re.sub(found, content, part) for part in replaced]
        expected = [" ".join(part.split()) for part in replaced]
        texts = tokenizer.batch_decode(tokenizer(paragraphs)["input_ids"])
        same = [text.strip() == wanted for text, wanted in zip(texts, expected, strict=True)]
        assert sum(same) / len(same) > 0.955

        # spaCy splits "mr." but not "Mr.": only lower-case text can be recovered.
        ids = tokenizer(expected)["input_ids"]
        back = [one == two for one, two in zip(ids, tokenizer(tokenizer.batch_decode(ids))["input_ids"], strict=True)]
        assert sum(back) / len(back) > 0.999

    def test_ids_of_the_embedded_vocabulary_are_those_its_weights_know(self):
        tokenizer = AutoTokenizer.from_pretrained(model_path("gpt1-tiny"), trust_remote_code=False)
        ids = tokenizer([*READABLE, "The Lady\u2019s  caf\u00e9\n\n\u201cMr. X\u201d \u2014 end.Then DON'T"])[
            "input_ids"
        ]
        assert (
            hashlib.sha256(json.dumps(ids).encode()).hexdigest()
            == "e7a9b18a24a49d09c2ed3d9e810400ba590b15c0d88caeb79e69efd50c06aff9"
        )


class TestAddedTokens:
    texts = [
        "in dignums dollars",
        "dignums",
        "dignums.",
        '"dignums," he said',
        "(dignum) dignums dig-dignums",
        "a\ndignums\nb",
    ]

    @pytest.fixture(params=["ours", "saved", "plain", "plain, saved"])
    def added(self, request, original, tmp_path):
        """A tokenizer with added tokens: of this class or the library's, new or saved and loaded."""

        def add(*tokens, special_tokens: bool = False):
            original.save_pretrained(tmp_path)
            cls = GPT1Tokenizer if request.param in ("ours", "saved") else AutoTokenizer
            tokenizer = cls.from_pretrained(tmp_path)
            assert tokenizer.add_tokens(list(tokens), special_tokens=special_tokens) == len(tokens)
            if request.param.endswith("saved"):
                tokenizer.save_pretrained(tmp_path)
                tokenizer = AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)
            return tokenizer

        return add

    @pytest.mark.parametrize("text", texts)
    def test_words_survive_encoding_and_decoding(self, added, original, text):
        tokenizer = added("dignums", "dignum", "old dignum")
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) == ids
        assert sum(token >= len(original) for token in ids) == text.count("dignum")
        assert tokenizer.decode(ids) == " " + text
        assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        found = [text[start:end] for (start, end), token in zip(offsets, ids, strict=True) if token >= len(original)]
        assert found == re.findall("dignums?", text)

    def test_text_after_several_added_tokens_is_separate(self, added):
        tokenizer = added("dignums", "dignum", "old dignum")
        for text in ("dignums dignum old dignum dollars", "the Old  DIGNUM dignums", "xdignumsy dignumdignums"):
            ids = tokenizer(text)["input_ids"]
            decoded = tokenizer.decode(ids)
            assert decoded.replace(" ", "") == text.lower().replace(" ", "")
            assert tokenizer(decoded)["input_ids"] == ids == tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))

    @pytest.mark.parametrize(
        "options", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"normalized": False}]
    )
    def test_options(self, added, options):
        tokenizer = added(AddedToken("dignums", **options))
        (number,) = tokenizer.convert_tokens_to_ids(["dignums"])
        for text in ("the dignums dollars", "dignums", "the dignums, and dignums."):
            ids = tokenizer(text)["input_ids"]
            assert ids.count(number) == text.count("dignums")
            assert tokenizer.decode(ids) == " " + text and tokenizer(tokenizer.decode(ids))["input_ids"] == ids
            assert tokenizer.convert_ids_to_tokens(ids).count("dignums") == text.count("dignums")
        assert (number in tokenizer("xdignums")["input_ids"]) != ("single_word" in options)

    @pytest.mark.parametrize(
        "text", ["<ent> the lady", "the <ent> lady", "the lady <ent>", '"<ent>," (<ent>) said <ent>.', "<ent>"]
    )
    def test_special_tokens_survive_encoding_and_decoding(self, added, text):
        tokenizer = added("<ent>", AddedToken("[x y]", special=True), special_tokens=True)
        ids = tokenizer(text, split_special_tokens=False)["input_ids"]
        assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text, split_special_tokens=False)) == ids
        assert ids.count(tokenizer.convert_tokens_to_ids("<ent>")) == text.count("<ent>")
        assert tokenizer.decode(ids) == " " + text
        without = tokenizer.decode(ids, skip_special_tokens=True)
        assert "<ent>" not in without and without.split() == tokenizer.decode(tokenizer(without)["input_ids"]).split()
        # Text that spells one is text, unless asked for.
        assert tokenizer.convert_tokens_to_ids("<ent>") not in tokenizer(text)["input_ids"]

    @pytest.mark.parametrize("token", [AddedToken("dignums", lstrip=True), AddedToken("dignums", rstrip=True)])
    def test_this_class_spells_tokens_as_the_vocabulary_does(self, original, tmp_path, token):
        original.save_pretrained(tmp_path)
        tokenizer = GPT1Tokenizer.from_pretrained(tmp_path)
        tokenizer.add_tokens([token])
        text = f"the {token} dollars"
        ids = tokenizer(text)["input_ids"]
        assert ids[1] == len(original)
        assert (
            tokenizer.tokenize(text)[1] == str(token)
            and tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) == ids
        )


class TestFixText:
    def test_ftfy_repairs_what_a_file_cannot(self, original_folder, tmp_path):
        pytest.importorskip("ftfy")
        fixing, plain = (GPT1Tokenizer.from_original(original_folder, fix_text=fix) for fix in (True, False))
        broken = "the caf\u00c3\u00a9, n&oacute;"
        assert (
            fixing(broken)["input_ids"] == plain("the caf\u00e9, n\u00f3")["input_ids"] != plain(broken)["input_ids"]
        )
        batch = fixing([broken], [broken])["input_ids"]
        assert batch == [2 * fixing(broken)["input_ids"]]
        with pytest.raises(ValueError, match="fix_text=False"):
            fixing(broken, return_offsets_mapping=True)

        fixing.save_pretrained(tmp_path)
        reloaded = GPT1Tokenizer.from_pretrained(tmp_path)
        assert reloaded.fix_text and not GPT1Tokenizer.from_pretrained(tmp_path, fix_text=False).fix_text
        assert reloaded(broken)["input_ids"] == fixing(broken)["input_ids"]

    def test_it_is_off_unless_asked_for(self, tokenizer):
        assert not tokenizer.fix_text


class TestPadding:
    rows = ["the lady", "the", "the lady wept slowly"]

    @pytest.mark.parametrize("side", ["right", "left"])
    def test_rows_are_filled_with_id_0_and_masked(self, tokenizer, side):
        batch = tokenizer(self.rows, padding=True, padding_side=side, return_tensors="pt")
        alone = [tokenizer(row)["input_ids"] for row in self.rows]
        longest = max(map(len, alone))
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, longest)
        for ids, mask, own in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), alone, strict=True):
            filling, n = [0] * (longest - len(own)), len(own)
            assert ids == (own + filling if side == "right" else filling + own)
            assert mask == ([1] * n + filling if side == "right" else filling + [1] * n)

    def test_the_default_side_is_right(self, tokenizer):
        assert tokenizer.padding_side == "right"
        assert tokenizer(self.rows, padding=True)["attention_mask"][1][-1] == 0

    def test_the_encoding_has_ids_and_mask_only(self, tokenizer):
        assert set(tokenizer("the lady")) == {"input_ids", "attention_mask"}
