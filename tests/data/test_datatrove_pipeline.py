"""Token streams by datatrove: byte for byte that of one process; restarts, and incomplete shards."""

import runpy

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.data import write_jsonl

from gpt1_hf import GPT1Tokenizer
from gpt1_hf.data.corpus import fingerprint, read_pieces
from gpt1_hf.data.token_stream import build_token_stream
from gpt1_hf.errors import GPT1Error
from gpt1_hf.resources import recipes_dir


pytest.importorskip("datatrove", reason="needs datatrove: pip install 'gpt1_hf[scale]'")

from datatrove.executor import LocalPipelineExecutor  # noqa: E402

from gpt1_hf.data.datatrove_pipeline import build_with_datatrove, token_pipelines  # noqa: E402


@pytest.fixture(scope="module")
def line_tokenizer(texts) -> GPT1Tokenizer:
    """A tokenizer with a line-break token."""
    return GPT1Tokenizer.train(["\n".join(texts)], vocab_size=150, show_progress=False)


def write_corpus(folder, layout: str, texts: list[str], column: str = "text") -> str:
    """Five files of three documents, some without text; a text file is one document."""
    folder.mkdir()
    files = [
        ["", texts[0], "\n" + texts[1] + "\n\n"],
        [texts[2], texts[3], " \n"],
        [" ", "", "\n"],
        [texts[4], "", texts[5] + "\n" + texts[6]],
        [texts[7], texts[8], texts[9]],
    ]
    for number, documents in enumerate(files):
        rows = [{column: document} for document in documents]
        if layout == "txt":
            (folder / f"{number}.txt").write_text("\n".join(documents))
        elif layout == "jsonl":
            write_jsonl(folder / f"train-{number}.jsonl", rows)
        else:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"train-{number}.parquet")
    return str(folder)


def one_machine(corpus: str, tokenizer: GPT1Tokenizer, folder, rows: str = "documents"):
    source = (corpus, "train", None, None, rows)
    return build_token_stream(read_pieces(*source), tokenizer, folder, fingerprint(*source))


def contents(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("layout", "rows", "tasks"),
    [("txt", "documents", 2), ("jsonl", "documents", 3), ("parquet", "documents", 7), ("txt", "lines", 3)]
    + [("parquet", "lines", tasks) for tasks in (1, 3, 5)],
)
def test_the_stream_equals_that_of_one_machine(tmp_path, line_tokenizer, texts, monkeypatch, layout, rows, tasks):
    monkeypatch.setattr("gpt1_hf.data.corpus.PIECE_SIZE", 100)
    monkeypatch.setattr("gpt1_hf.data.token_stream.LINE_PART_SIZE", 100)
    corpus = write_corpus(tmp_path / "corpus", layout, texts)
    one_machine(corpus, line_tokenizer, tmp_path / "one", rows)
    build_with_datatrove(corpus, line_tokenizer, tmp_path / "many", tasks, workers=1, rows=rows)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_documents_need_no_line_break_token(tmp_path, tokenizer, texts):
    corpus = write_corpus(tmp_path / "corpus", "jsonl", texts)
    one_machine(corpus, tokenizer, tmp_path / "one")
    build_with_datatrove(corpus, tokenizer, tmp_path / "many", 2, workers=1)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    with pytest.raises(GPT1Error, match="which this tokenizer does not have"):
        token_pipelines(corpus, tokenizer, tmp_path / "many", 2, rows="lines")


def test_column_configuration_and_split_are_those_of_one_machine(tmp_path, line_tokenizer, texts):
    (tmp_path / "corpus" / "small").mkdir(parents=True)
    for number in range(3):
        rows = [{"id": n, "body": text} for n, text in enumerate(texts[number : number + 4])]
        write_jsonl(tmp_path / "corpus" / "small" / f"test-{number}.jsonl", rows)
    corpus, options = str(tmp_path / "corpus"), {"split": "test", "column": "body", "config": "small"}
    pieces = read_pieces(corpus, **options)
    build_token_stream(pieces, line_tokenizer, tmp_path / "one", fingerprint(corpus, **options))
    build_with_datatrove(corpus, line_tokenizer, tmp_path / "many", 2, workers=1, **options)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_a_corpus_without_text_is_an_error(tmp_path, line_tokenizer):
    for number in range(2):
        write_jsonl(tmp_path / f"train-{number}.jsonl", [{"text": " "}])
    for rows in ("documents", "lines"):
        with pytest.raises(GPT1Error, match="the corpus is empty"):
            build_with_datatrove(str(tmp_path), line_tokenizer, tmp_path / "many", 2, workers=1, rows=rows)


def test_a_restart_does_only_the_missing_tasks(tmp_path, line_tokenizer, texts, monkeypatch):
    corpus = write_corpus(tmp_path / "corpus", "jsonl", texts)
    tokenize, _, work = token_pipelines(corpus, line_tokenizer, tmp_path / "many", 3)
    # One machine has done its share of the tasks; then the next task is killed while it writes.
    LocalPipelineExecutor(tokenize, tasks=3, workers=1, logging_dir=str(work / "logs"), local_tasks=2).run()
    (work / "00002.unfinished").mkdir()
    (work / "00002.unfinished" / "tokens.bin").write_bytes(b"torn")
    assert not (work / "00002").exists()

    parts = []

    def read(*source, part):
        parts.append(part)
        return read_pieces(*source, part=part)

    monkeypatch.setattr("gpt1_hf.data.datatrove_pipeline.read_pieces", read)
    build_with_datatrove(corpus, line_tokenizer, tmp_path / "many", 3, workers=1)
    assert parts == [(2, 3)]
    build_with_datatrove(corpus, line_tokenizer, tmp_path / "many", 3, workers=1)
    assert parts == [(2, 3)]
    one_machine(corpus, line_tokenizer, tmp_path / "one")
    assert contents(tmp_path / "many") == contents(tmp_path / "one")

    write_jsonl(tmp_path / "corpus" / "train-9.jsonl", [{"text": "the lady"}])
    changed = build_with_datatrove(corpus, line_tokenizer, tmp_path / "many", 3, workers=1)
    assert parts == [(2, 3), (0, 3), (1, 3), (2, 3)]
    assert len(changed) == len(one_machine(corpus, line_tokenizer, tmp_path / "one"))


@pytest.mark.parametrize("damage", ["short", "index", "gone"])
def test_an_incomplete_shard_is_not_used(tmp_path, line_tokenizer, texts, damage):
    corpus = write_corpus(tmp_path / "corpus", "jsonl", texts)
    tokenize, merge, work = token_pipelines(corpus, line_tokenizer, tmp_path / "many", 2)
    LocalPipelineExecutor(tokenize, tasks=2, workers=1, logging_dir=str(work / "logs")).run()
    shard = work / "00001"
    if damage == "short":
        (shard / "tokens.bin").write_bytes((shard / "tokens.bin").read_bytes()[:-2])
    elif damage == "index":
        (shard / "index.json").unlink()
    else:
        shard.rename(work / "elsewhere")
    with pytest.raises(GPT1Error, match="00001 is missing or incomplete: delete"):
        list(merge[0].run())
    assert not (tmp_path / "many").exists()


@pytest.mark.slow
def test_the_recipe_in_processes_builds_what_pretraining_reads(tmp_path, line_tokenizer, texts, monkeypatch, capsys):
    from gpt1_hf.training.arguments import PretrainArguments
    from gpt1_hf.training.pretrain import token_streams

    corpus = write_corpus(tmp_path / "corpus", "parquet", texts, "body")
    line_tokenizer.save_pretrained(tmp_path / "tokenizer")
    settings = {
        "corpus": corpus,
        "tokenizer": str(tmp_path / "tokenizer"),
        "output_dir": str(tmp_path / "run"),
        "corpus_rows": "lines",
        "corpus_column": "body",
    }
    argv = [text for key, value in settings.items() for text in (f"--{key}", value)]
    runpy.run_path(str(recipes_dir() / "scale.py"))["main"]([*argv, "--tasks", "3", "--workers", "2"])
    assert "1 documents, " in capsys.readouterr().out
    source = (corpus, "train", None, None, "lines", "body")
    build_token_stream(read_pieces(*source), line_tokenizer, tmp_path / "one", fingerprint(*source))
    assert contents(tmp_path / "run" / "tokens" / "train") == contents(tmp_path / "one")
    monkeypatch.setattr("gpt1_hf.data.token_stream.write_token_stream", lambda *args: pytest.fail("built again"))
    train, validation = token_streams(PretrainArguments(**settings), line_tokenizer)
    assert len(train) + len(validation) == (tmp_path / "one" / "tokens.bin").stat().st_size // 2
