"""The word-splitting rules: generated from the installed spaCy, with the words of the original pipeline."""

import random
import re
from pathlib import Path

import pytest

from gpt1_hf import GPT1Tokenizer
from gpt1_hf.tokenization_rules import tables


pytest.importorskip("ftfy")
spacy = pytest.importorskip("spacy")

from helpers.original_tokenizer import OriginalTokenizer  # noqa: E402

from gpt1_hf.tokenization_rules import generate  # noqa: E402


SENTENCES = """
Don't, DON'T, don't've, dont; cannot CANNOT can't. I'd've, she'll, y'all, c'mon, how'd'y, I'ma, 'twas, 'em, 'Cause.
Mr. Smith and Mrs. O'Dell vs. Dr. No, e.g. at 5p.m. or 10am, 3 a.m. on Jan. 3, in N.Y., the U.S., the U.S.A., Ph.D.
It cost $5, US$5, 5$, 5%, 5km, 5 km. about 390m. and 20°C or 20 °C, #1, @you, 1:30, a:b, a<b, 2^3, x=y, AT&T, C++.
end.Then end.Mr. Smith www.foo.Bar.com foo.com. me@foo.com http://a.b/c?d=e#f 1.2.3.4 a.b.c A.B.C. x... y ...z a..b
''Tis ``quoted'' nothin' goin'. o'clock. dogs' dog's James's rock'n'roll d'artagnan word''' we''re 's 'd
well-known -- --- a--b ~~ // a/b and/or (((x))) [y] {z} !!! ??? ?! ;; "quoted" * ** _a_ __init__ | || + ++ 1+1
café naïve ÉTÉ ΣΟΦΟΣ İx £5 5€ ¿Qué? «x» a·b ☺ a☺b 😀 © x® ™
“She’s ‘here’…” — a–b ― ﬁre ＡＢ！ ´x´ a\u00a0b\u3000c &amp; &quot;q&quot;
:) :-) :D <3 >.< o.O V.V xD 8) 0.0 im. wed. id wed its ill were shell hell thats whats
""".strip().split("\n")


@pytest.fixture(scope="module")
def words():
    """The tokenizer's words of a text, before byte-pair encoding."""
    backend = GPT1Tokenizer.train(["a"], vocab_size=3, show_progress=False).backend_tokenizer
    return lambda text: [w for w, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))]


@pytest.fixture(scope="module")
def oracle():
    return OriginalTokenizer()


def test_the_tables_match_the_installed_spacy(tmp_path, monkeypatch, capsys):
    assert generate.TABLES_FILE.samefile(tables.__file__)
    monkeypatch.setattr(generate, "TABLES_FILE", tmp_path / "tables.py")
    generate.main()
    assert f"spaCy {spacy.__version__}" in capsys.readouterr().out
    generated = (tmp_path / "tables.py").read_text()
    versions = re.compile("spaCy [0-9.]+ and ftfy [0-9.]+")
    if versions.search(tables.__doc__)[0] == versions.search(generated)[0]:
        assert generated == Path(tables.__file__).read_text()


@pytest.mark.parametrize("sentence", SENTENCES)
def test_words_are_the_originals(words, oracle, sentence):
    assert [words(chunk) for chunk in sentence.split(" ")] == [oracle.words(chunk) for chunk in sentence.split(" ")]
    assert words(sentence) == oracle.words(sentence)


@pytest.mark.parametrize("end", ["", ".", "'", "'s", ",", "...", '?"'])
def test_the_exceptions_of_spacy_are_cut_alike(words, oracle, end):
    rules = [text for text in oracle.spacy.tokenizer.rules if not text.isspace()]
    texts = [start + text + end for start in ("", "'", "(", "the ") for text in rules]
    wrong = [text for text in texts if words(text) != oracle.words(text)]
    assert len(wrong) <= 0.05 * len(texts), wrong  # emoticons, doubled apostrophes


def test_ids_of_real_texts_are_the_originals(data_dir):
    import pyarrow.parquet as pq

    folder = Path(data_dir) / "openai-community" / "openai-gpt"
    ours, oracle = GPT1Tokenizer.from_original(folder), OriginalTokenizer(folder)
    texts = []
    for name, column in (("books", "text"), ("nyu-mll/glue/rte", "sentence1"), ("nyu-mll/glue/stsb", "sentence1")):
        file = sorted((Path(data_dir) / name).glob("validation*.parquet"))[0]
        cells = pq.read_table(file, columns=[column]).column(column).to_pylist()
        if name == "books":
            books = [cell.split("\n\n") for cell in cells]
            cells = ["\n\n".join(book[i : i + 5]) for book in books for i in range(0, len(book), 5)]
        texts += random.Random(0).sample(cells, min(250, len(cells)))
    wrong = [text for text in texts if ours(text, verbose=False)["input_ids"] != oracle.encode(text)]
    assert len(wrong) <= 0.002 * len(texts), wrong
