"""Running text: documents from files, the token stream on disk, and spans of it for pre-training."""

import json
import os
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.data import write_jsonl

from gpt1_hf import GPT1Tokenizer
from gpt1_hf.data.corpus import fingerprint, has_split, read_documents, read_pieces
from gpt1_hf.data.spans import ConsecutiveSpans, RandomSpans
from gpt1_hf.data.token_stream import (
    TokenStream,
    build_token_stream,
    encode_blocks,
    stream_fingerprint,
)
from gpt1_hf.errors import GPT1Error


DOCUMENTS = ["The lady wept.\n\nThe captain smiled.", "It's a dark night.", "a garden\n"]


@pytest.fixture(scope="module")
def line_tokenizer(texts) -> GPT1Tokenizer:
    """A tokenizer with a line-break token."""
    pairs = ["\n\n".join(texts[i : i + 2]) for i in range(0, 60, 2)]
    return GPT1Tokenizer.train(pairs, vocab_size=150, show_progress=False)


def write_corpus(folder, layout: str, documents: list[str] = DOCUMENTS) -> str:
    """Write documents as a corpus, and return the name by which it is read."""
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "txt folder":
        for i, document in enumerate(documents):
            (folder / f"{i}.txt").write_text(document, encoding="utf-8")
        return str(folder)
    rows = [{"text": document, "title": "x"} for document in documents]
    if layout == "jsonl file":
        return str(write_jsonl(folder / "corpus.jsonl", rows))
    if layout == "jsonl folder":
        write_jsonl(folder / "train.jsonl", rows)
    elif layout == "parquet folder":
        pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    elif layout == "parquet file":
        pq.write_table(pa.Table.from_pylist(rows), folder / "corpus.parquet")
        return str(folder / "corpus.parquet")
    return str(folder)


LAYOUTS = ["txt folder", "jsonl file", "jsonl folder", "parquet file", "parquet folder"]


def folders_in(path) -> list[str]:
    """Names in a folder, except the lock's."""
    return sorted(entry.name for entry in path.iterdir() if entry.suffix != ".lock")


def unread():
    raise AssertionError("the documents were read again")
    yield


class TestReadDocuments:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_every_layout_gives_the_documents_in_order(self, tmp_path, layout):
        corpus = write_corpus(tmp_path / "corpus", layout)
        assert list(read_documents(corpus)) == DOCUMENTS

    def test_one_text_file_is_one_document(self, tmp_path):
        (tmp_path / "letter.txt").write_text("a\n\nb", encoding="utf-8")
        assert list(read_documents(str(tmp_path / "letter.txt"))) == ["a\n\nb"]

    def test_text_files_in_sub_folders_belong_to_the_corpus(self, tmp_path):
        write_corpus(tmp_path / "b", "txt folder", ["second"])
        write_corpus(tmp_path / "a", "txt folder", ["first"])
        assert list(read_documents(str(tmp_path))) == ["first", "second"]

    def test_empty_documents_are_left_out(self, tmp_path):
        corpus = write_corpus(tmp_path, "jsonl file", ["", "the lady", " \n\t "])
        assert list(read_documents(corpus)) == ["the lady"]

    def test_missing_texts_are_left_out(self, tmp_path):
        corpus = write_jsonl(tmp_path / "corpus.jsonl", [{"text": None}, {"text": "the lady"}])
        assert list(read_documents(str(corpus))) == ["the lady"]

    def test_bytes_that_are_not_utf_8_are_replaced(self, tmp_path):
        (tmp_path / "old.txt").write_bytes(b"caf\xe9 noir")
        assert list(read_documents(str(tmp_path / "old.txt"))) == ["caf\ufffd noir"]

    def test_splits_are_files_by_their_names(self, tmp_path):
        write_jsonl(tmp_path / "train.jsonl", [{"text": "the lady"}])
        write_jsonl(tmp_path / "validation.jsonl", [{"text": "the captain"}])
        assert list(read_documents(str(tmp_path), "train")) == ["the lady"]
        assert list(read_documents(str(tmp_path), "validation")) == ["the captain"]
        assert has_split(str(tmp_path), "validation") and not has_split(str(tmp_path), "test")

    def test_text_files_have_no_splits(self, tmp_path):
        (tmp_path / "validation.txt").write_text("a", encoding="utf-8")
        assert not has_split(str(tmp_path), "validation")
        assert not has_split(str(tmp_path / "validation.txt"), "validation")

    def test_a_local_copy_in_the_data_folder_is_found(self, tmp_path):
        write_corpus(tmp_path / "someone" / "books", "parquet folder")
        assert list(read_documents("someone/books", data_dir=str(tmp_path))) == DOCUMENTS

    @pytest.mark.parametrize("corpus", ["no-such-corpus", "someone/no-such-corpus", "no-such-file.txt"])
    def test_a_missing_corpus_is_named(self, corpus):
        with pytest.raises(GPT1Error, match=corpus):
            list(read_documents(corpus))

    def test_a_missing_text_column_is_named_with_the_existing_ones(self, tmp_path):
        corpus = write_jsonl(tmp_path / "corpus.jsonl", [{"body": "the lady", "title": "x"}])
        with pytest.raises(GPT1Error, match=r"no column 'text'.*\['body', 'title'\]"):
            list(read_documents(str(corpus)))

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_an_empty_folder_is_an_error(self, tmp_path, split):
        with pytest.raises(GPT1Error, match=f"no file of the split '{split}'"):
            list(read_documents(str(tmp_path), split))

    def test_an_empty_file_is_an_error(self, tmp_path):
        (tmp_path / "train.jsonl").write_text("")
        with pytest.raises(GPT1Error, match="empty"):
            list(read_documents(str(tmp_path)))


class TestPieces:
    LINES = ["", *(f"line number {i}" for i in range(10)), " ", ""]

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_they_hold_all_lines_in_order(self, tmp_path, monkeypatch, layout):
        monkeypatch.setattr("gpt1_hf.data.corpus.PIECE_SIZE", 20)
        corpus = write_corpus(tmp_path / "corpus", layout, ["\n".join(self.LINES), "short"])
        pieces = list(read_pieces(corpus))
        assert pieces[-1] == (1, "short")
        assert "\n".join(piece for number, piece in pieces if number == 0) == "\n".join(self.LINES)
        assert len(pieces) > 4 and max(len(piece) for _, piece in pieces) < 40

    def test_rows_can_be_the_lines_of_one_text(self, tmp_path, monkeypatch):
        monkeypatch.setattr("gpt1_hf.data.corpus.PIECE_SIZE", 20)
        corpus = write_corpus(tmp_path / "lines", "jsonl file", self.LINES)
        pieces = list(read_pieces(corpus, rows="lines"))
        assert {number for number, _ in pieces} == {0} and len(pieces) > 4
        assert "\n".join(piece for _, piece in pieces) == "\n".join(self.LINES)

    def test_another_kind_of_rows_is_refused(self, tmp_path):
        with pytest.raises(GPT1Error, match="unknown kind of rows 'sentences'; choose one of documents, lines"):
            list(read_pieces(str(tmp_path), rows="sentences"))


def encode_document(tokenizer, text: str) -> list[int]:
    return sum(encode_blocks(tokenizer, text), [])


class TestEncodeDocument:
    @pytest.mark.parametrize(
        "text",
        [
            "The lady wept.\n\nThe captain smiled.",
            "one\ntwo\r\nthree\r\n\r\nfour",
            "\n\n  the lady \n \t \n\u00a0\n wept\n\n",
            "a page\x0cbreak, a\x0btab\x85and\u2028separators\u2029here",
            "a carriage\rreturn alone",
            "unit\x1cseparators\n\x1d\nalone\n\x1e",
            "no line break at all",
            "",
            " \n \n",
            "“The   lady’s”…\n—\n<unk>\n_start_",
        ],
    )
    def test_it_equals_the_tokenizer_on_the_whole_text(self, line_tokenizer, text):
        assert encode_document(line_tokenizer, text) == line_tokenizer(text)["input_ids"]

    def test_it_equals_the_tokenizer_on_long_text(self, line_tokenizer, texts):
        text = "\n\n".join(texts)
        assert encode_document(line_tokenizer, text) == line_tokenizer(text, verbose=False)["input_ids"]
        line_break = line_tokenizer.convert_tokens_to_ids("\n</w>")
        assert encode_document(line_tokenizer, text).count(line_break) == len(texts) - 1

    def test_long_lines_in_parts_and_batches_are_the_whole(self, line_tokenizer, texts, monkeypatch, tmp_path):
        lines = [f"  {' '.join(texts)} ", "", "日本語" * 200, "it's 12 km to the U.S., 5 °F . " * 50, "x" * 900]
        text = "\n".join(lines + texts[:9])
        whole = line_tokenizer(text, verbose=False)["input_ids"]
        monkeypatch.setattr("gpt1_hf.data.token_stream.LINE_PART_SIZE", 64)
        monkeypatch.setattr("gpt1_hf.data.token_stream.BATCH_SIZE", 500)
        blocks = list(encode_blocks(line_tokenizer, text))
        assert len(blocks) > 20
        assert sum(blocks, []) == encode_document(line_tokenizer, text) == whole
        pieces = [(0, "\n".join(lines)), (0, "\n".join(texts[:9]))]
        stream = build_token_stream(pieces, line_tokenizer, tmp_path / "tokens", "x")
        assert stream.tokens.tolist() == whole

    def test_a_tokenizer_without_a_line_break_token_reads_the_text_as_it_is(self, tokenizer):
        assert encode_document(tokenizer, "the lady\n\nwept") == tokenizer("the lady\n\nwept")["input_ids"]

    def test_no_special_token_is_added(self, tokenizer):
        from gpt1_hf import GPT1Processor

        processor = GPT1Processor(tokenizer)
        assert encode_document(processor.tokenizer, "the lady") == tokenizer("the lady")["input_ids"]


def test_damaged_rows_are_named(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "\xff\xfe"}\n')
    with pytest.raises(GPT1Error, match="cannot read the corpus .*rows.jsonl' to its end: it is damaged"):
        list(read_documents(str(tmp_path / "rows.jsonl")))


class TestTokenStream:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_it_holds_every_document_of_every_layout(self, tmp_path, line_tokenizer, layout):
        corpus = write_corpus(tmp_path / "corpus", layout)
        stream = build_token_stream(
            read_pieces(corpus), line_tokenizer, tmp_path / "tokens", fingerprint(corpus, "train")
        )
        expected = [line_tokenizer(document)["input_ids"] for document in DOCUMENTS]
        assert [(ids.tolist(), n_chars) for ids, n_chars in stream.documents()] == [
            (ids, len(document)) for ids, document in zip(expected, DOCUMENTS, strict=True)
        ]
        assert stream.tokens.tolist() == sum(expected, [])
        assert len(stream) == sum(map(len, expected))
        assert isinstance(stream.tokens, np.memmap) and stream.tokens.dtype == np.uint16

    @pytest.mark.parametrize("size", [10, 40, 1 << 16])
    def test_it_does_not_depend_on_pieces_and_rows(self, tmp_path, line_tokenizer, texts, monkeypatch, size):
        monkeypatch.setattr("gpt1_hf.data.corpus.PIECE_SIZE", size)
        monkeypatch.setattr("gpt1_hf.data.token_stream.LINE_PART_SIZE", size)
        lines = ["", *texts[:20], " ", "", *texts[20:30]]
        book = "\n".join(lines)
        by_row = write_corpus(tmp_path / "lines", "parquet folder", lines)
        by_book = write_corpus(tmp_path / "book", "txt folder", [book])
        streams = [
            build_token_stream(read_pieces(by_row, rows="lines"), line_tokenizer, tmp_path / "a", "a"),
            build_token_stream(read_pieces(by_book), line_tokenizer, tmp_path / "b", "b"),
        ]
        for stream in streams:
            assert stream.tokens.tolist() == line_tokenizer(book, verbose=False)["input_ids"]
            assert stream.document_ends == [len(stream)]
            assert stream.document_chars == [len(book)]

    def test_only_one_of_two_processes_builds(self, tmp_path, tokenizer):
        started, built = threading.Event(), []

        def slow():
            started.set()
            time.sleep(0.3)
            yield 0, "the lady"

        def build():
            built.append(build_token_stream(slow(), tokenizer, tmp_path / "tokens", "source"))

        first = threading.Thread(target=build)
        first.start()
        started.wait()
        second = build_token_stream(unread(), tokenizer, tmp_path / "tokens", "source")
        first.join()
        assert second.tokens.tolist() == built[0].tokens.tolist()

    def test_it_can_be_loaded_again(self, tmp_path, tokenizer):
        built = build_token_stream(enumerate(DOCUMENTS), tokenizer, tmp_path / "tokens", "source")
        loaded = TokenStream.load(tmp_path / "tokens")
        assert np.array_equal(built.tokens, loaded.tokens)
        assert (loaded.document_ends, loaded.document_chars) == (built.document_ends, built.document_chars)

    def test_it_is_reused_while_nothing_changes(self, tmp_path, tokenizer):
        built = build_token_stream(enumerate(DOCUMENTS), tokenizer, tmp_path / "tokens", "source")
        written = (tmp_path / "tokens" / "tokens.bin").stat()
        again = build_token_stream(unread(), tokenizer, tmp_path / "tokens", "source")
        assert np.array_equal(built.tokens, again.tokens)
        assert (tmp_path / "tokens" / "tokens.bin").stat().st_mtime_ns == written.st_mtime_ns
        assert (tmp_path / "tokens" / "tokens.bin").stat().st_ino == written.st_ino

    def test_it_is_rebuilt_when_the_source_changes(self, tmp_path, tokenizer):
        build_token_stream(enumerate(DOCUMENTS), tokenizer, tmp_path / "tokens", "source")
        again = build_token_stream([(0, "the lady")], tokenizer, tmp_path / "tokens", "another source")
        assert again.tokens.tolist() == tokenizer("the lady")["input_ids"]
        assert again.document_chars == [8]

    def test_it_is_rebuilt_when_the_tokenizer_changes(self, tmp_path, tokenizer, line_tokenizer):
        build_token_stream(enumerate(DOCUMENTS), tokenizer, tmp_path / "tokens", "source")
        again = build_token_stream(enumerate(DOCUMENTS), line_tokenizer, tmp_path / "tokens", "source")
        assert again.tokens[: again.document_ends[0]].tolist() == line_tokenizer(DOCUMENTS[0])["input_ids"]

    @pytest.mark.parametrize("documents", [[], ["", " \n"]], ids=["no document", "no token"])
    def test_an_empty_corpus_leaves_nothing_behind(self, tmp_path, tokenizer, documents):
        with pytest.raises(GPT1Error, match="the corpus is empty"):
            build_token_stream(enumerate(documents), tokenizer, tmp_path / "tokens", "source")
        assert folders_in(tmp_path) == []

    def test_a_corpus_that_fails_keeps_the_old_stream(self, tmp_path, tokenizer):
        build_token_stream(enumerate(DOCUMENTS), tokenizer, tmp_path / "tokens", "source")

        def broken():
            yield 0, "the lady"
            raise GPT1Error("the second document is lost")

        with pytest.raises(GPT1Error, match="lost"):
            build_token_stream(broken(), tokenizer, tmp_path / "tokens", "another source")
        assert folders_in(tmp_path) == ["tokens"]
        build_token_stream(unread(), tokenizer, tmp_path / "tokens", "source")

    def test_the_rest_of_an_interrupted_build_is_overwritten(self, tmp_path, tokenizer):
        (tmp_path / "tokens.unfinished").mkdir()
        (tmp_path / "tokens.unfinished" / "tokens.bin").write_bytes(b"half of it")
        stream = build_token_stream([(0, "the lady")], tokenizer, tmp_path / "tokens", "source")
        assert stream.tokens.tolist() == tokenizer("the lady")["input_ids"]
        assert folders_in(tmp_path) == ["tokens"]

    def test_parent_folders_are_created(self, tmp_path, tokenizer):
        build_token_stream([(0, "the lady")], tokenizer, tmp_path / "run" / "tokens" / "train", "source")
        index = json.loads((tmp_path / "run" / "tokens" / "train" / "index.json").read_text())
        assert index["document_ends"] == [2]


class TestFingerprint:
    def test_it_stays_while_the_files_stay(self, tmp_path):
        corpus = write_corpus(tmp_path, "txt folder")
        assert fingerprint(corpus, "train") == fingerprint(corpus, "train")

    def test_it_changes_with_content_time_files_split_and_name(self, tmp_path):
        corpus = write_corpus(tmp_path / "a", "txt folder")
        other = write_corpus(tmp_path / "b", "txt folder")
        seen = {fingerprint(corpus, "train"), fingerprint(corpus, "validation"), fingerprint(other, "train")}
        seen |= {fingerprint(corpus, "train", revision="x"), fingerprint(corpus, "train", rows="lines")}
        (tmp_path / "a" / "0.txt").write_text("longer than it was before, by far", encoding="utf-8")
        seen.add(fingerprint(corpus, "train"))
        os.utime(tmp_path / "a" / "0.txt", ns=(1, 1))
        seen.add(fingerprint(corpus, "train"))
        (tmp_path / "a" / "3.txt").write_text("new", encoding="utf-8")
        seen.add(fingerprint(corpus, "train"))
        assert len(seen) == 8

    def test_it_sees_the_copy_in_the_data_folder(self, tmp_path):
        write_corpus(tmp_path / "someone" / "books", "jsonl folder")
        assert "train.jsonl" in fingerprint("someone/books", "train", str(tmp_path))
        assert "train.jsonl" not in fingerprint("someone/books", "train")


class TestSpans:
    tokens = TokenStream(np.arange(100, 111, dtype=np.uint16), [3, 4, 11], [9, 1, 20])

    def test_every_contiguous_span_is_there_once(self):
        spans = RandomSpans(self.tokens, 4)
        assert len(spans) == 8
        assert [spans[i]["input_ids"].tolist() for i in range(8)] == [list(range(100 + i, 104 + i)) for i in range(8)]
        assert spans[0]["input_ids"].dtype == torch.int64

    def test_the_labels_are_the_span_itself(self):
        span = RandomSpans(self.tokens, 4)[3]
        assert torch.equal(span["input_ids"], span["labels"])

    def test_they_know_their_documents(self):
        spans = RandomSpans(self.tokens, 2)
        assert [spans.documents_of([start]) for start in (0, 2, 3, 4, 9)] == [[0], [0, 1], [1, 2], [2], [2]]
        assert spans.documents_of([9, 0]) == [0, 2]
        assert [spans[3]["start"], ConsecutiveSpans(self.tokens, 4)[1]["start"]] == [3, 4]

    def test_an_epoch_draws_as_many_tokens_as_the_stream_has(self):
        assert RandomSpans(self.tokens, 4).spans_per_epoch == 2
        assert RandomSpans(self.tokens, 11).spans_per_epoch == 1

    def test_too_short_a_stream_is_an_error(self):
        assert len(RandomSpans(self.tokens, 11)) == 1
        with pytest.raises(GPT1Error, match="11 tokens, fewer than one span of 12"):
            RandomSpans(self.tokens, 12)

    def test_consecutive_spans_leave_out_the_rest(self):
        windows = ConsecutiveSpans(self.tokens, 4)
        assert len(windows) == 2
        assert [windows[i]["input_ids"].tolist() for i in range(2)] == [[100, 101, 102, 103], [104, 105, 106, 107]]
        assert torch.equal(windows[1]["labels"], windows[1]["input_ids"])

    def test_iterating_ends(self):
        assert len([span for span, _ in zip(RandomSpans(self.tokens, 4), range(50), strict=False)]) == 8
        with pytest.raises(IndexError):
            RandomSpans(self.tokens, 4)[8]

    def test_a_data_loader_stacks_them(self):
        batch = next(iter(torch.utils.data.DataLoader(ConsecutiveSpans(self.tokens, 4), batch_size=2)))
        assert batch["input_ids"].shape == (2, 4)

    def test_large_ids_stay_whole(self):
        assert RandomSpans(TokenStream(np.array([70000, 1], dtype=np.uint32), [2], [5]), 2)[0][
            "input_ids"
        ].tolist() == [70000, 1]


def test_a_stream_is_repaired_by_fix_text(line_tokenizer, tmp_path):
    pytest.importorskip("ftfy", reason="needs ftfy: the extra `exact`")
    line_tokenizer.save_pretrained(tmp_path)
    repairing = GPT1Tokenizer.from_pretrained(tmp_path, fix_text=True)
    text = "the schÃ¶n cafÃ© - it was"
    assert encode_document(repairing, text) == repairing(text)["input_ids"] != encode_document(line_tokenizer, text)
    assert stream_fingerprint("x", repairing) != stream_fingerprint("x", line_tokenizer)
    assert encode_document(line_tokenizer, "a \ud83d half") == line_tokenizer("a \ud83d half")["input_ids"]
