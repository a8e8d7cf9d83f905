"""Corpora of rows: column, configuration, split and format, and what is said when one is wrong."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.data import write_jsonl

from gpt1_hf.cli import main
from gpt1_hf.data.corpus import fingerprint, has_split, read_documents, read_pieces
from gpt1_hf.data.token_stream import TokenStream
from gpt1_hf.errors import GPT1Error


TEXTS = ['"No," said the lady.', "NA", "null", "007"]


def write_rows(path, texts=TEXTS, column="body") -> str:
    """A file of rows of any kind, with the text in a column of that name."""
    kind = path.suffix
    if kind == ".jsonl":
        return str(write_jsonl(path, [{"id": n, column: text} for n, text in enumerate(texts)]))
    if kind == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), column: texts}), path)
        return str(path)
    comma = "," if kind == ".csv" else "\t"
    cells = [text.replace('"', '""') for text in texts]
    lines = [f'{n}{comma}"{cell}"' for n, cell in enumerate(cells)]
    path.write_text("\n".join([f"id{comma}{column}", *lines, ""]), encoding="utf-8")
    return str(path)


def documents(corpus, split="train", **options) -> list[str]:
    return list(read_documents(str(corpus), split, **options))


@pytest.fixture
def copy(tmp_path):
    """A local copy of a data set with two configurations, laid out as on the Hub."""
    for name in ("small-v1", "large-v1"):
        folder = tmp_path / "owner" / "texts" / name
        folder.mkdir(parents=True)
        for split in ("train", "validation", "test"):
            write_rows(folder / f"{split}-00000-of-00001.parquet", [f"{name} {split}"], "text")
    return tmp_path / "owner" / "texts"


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv", "tsv"])
def test_any_column_of_any_kind_of_file_is_read(tmp_path, kind):
    assert documents(write_rows(tmp_path / f"rows.{kind}"), column="body") == TEXTS
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, texts in (("train-0", TEXTS[:1]), ("train-1", TEXTS[1:]), ("validation", ["held out"])):
        write_rows(folder / f"{name}.{kind}", texts)
    assert documents(folder, column="body") == TEXTS
    assert documents(folder, "validation", column="body") == ["held out"] and has_split(str(folder), "validation")
    parts = [list(read_pieces(str(folder), column="body", part=(n, 2))) for n in range(2)]
    assert [text for part in parts for _, text in part] == TEXTS


def test_a_configuration_is_a_sub_folder_of_a_local_copy(copy):
    data_dir = str(copy.parent.parent)
    assert documents("owner/texts", data_dir=data_dir, config="small-v1") == ["small-v1 train"]
    assert documents("owner/texts", "test", data_dir=data_dir, config="large-v1") == ["large-v1 test"]
    assert has_split("owner/texts", "validation", data_dir, "small-v1")
    assert not has_split("owner/texts", "validation", data_dir)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"has the configurations large-v1, small-v1: choose one with --corpus_config$"),
        (
            {"config": "small-v2"},
            r"no configuration .* 'small-v2': choose one of large-v1, small-v1; did you mean small-v1\?",
        ),
        ({"config": "small-v1", "split": "dev"}, "no file of the split 'dev', .* only of test, train, validation$"),
        ({"config": "small-v1", "column": "txt"}, r"column 'txt': .* from \['id', 'text'\]; did you mean text\?$"),
        ({"config": "small-v1", "column": "id"}, r"row 1 .* has 0 in the column 'id', which is not text"),
    ],
)
def test_what_a_corpus_lacks_is_one_sentence(copy, options, message):
    with pytest.raises(GPT1Error, match=message) as error:
        documents(copy, **options)
    assert "\n" not in str(error.value)


def test_files_have_no_configurations(tmp_path):
    path = write_rows(tmp_path / "rows.csv")
    with pytest.raises(GPT1Error, match="no configuration .* 'x': leave out --corpus_config"):
        documents(path, config="x")


def test_empty_cells_are_left_out_and_a_corpus_of_them_is_an_error(tmp_path, base_model, capsys):
    rows = [{"body": None}, {"body": "the lady"}, {"body": ""}]
    assert documents(write_jsonl(tmp_path / "some.jsonl", rows), column="body") == ["the lady"]
    write_jsonl(tmp_path / "none.jsonl", rows[:1] * 3)
    options = f"--corpus_column body --tokenizer {base_model} --output_dir {tmp_path / 'run'} --use_cpu true"
    assert main(f"pretrain --corpus {tmp_path / 'none.jsonl'} {options}".split()) == 1
    assert "the corpus is empty: it has no text" in capsys.readouterr().err
    assert not list((tmp_path / "run").rglob("*.bin"))


def test_lists_are_not_text(tmp_path):
    with pytest.raises(GPT1Error, match=r"row 2 .* has \['a'.*\.\.\. in the column 'words', which is not text"):
        documents(write_jsonl(tmp_path / "x.jsonl", [{"words": None}, {"words": ["a"] * 50}]), column="words")


def test_tables_of_one_corpus_must_be_alike(tmp_path):
    write_rows(tmp_path / "train-0.csv")
    write_rows(tmp_path / "train-1.csv", column="other")
    with pytest.raises(GPT1Error, match=r"train-1.csv has other columns, .* than .*train-0.csv"):
        documents(tmp_path, column="body")
    write_rows(tmp_path / "train-1.jsonl")
    with pytest.raises(GPT1Error, match=r"mixes .csv and .jsonl files of the split 'train'"):
        documents(tmp_path, column="body")


def test_the_line_of_a_damaged_table_is_named(tmp_path):
    (tmp_path / "x.tsv").write_text("id\tbody\n1\ta\n2\n")
    with pytest.raises(GPT1Error, match="x.tsv: line 3 has 1 cell, but the header has 2"):
        documents(tmp_path / "x.tsv", column="body")


def test_fingerprints_of_earlier_streams_stay_valid():
    """Literal: a stream of an earlier version is reused only if its fingerprint does not change."""
    assert fingerprint("a/b", "train") == '["a/b", "train", null, "documents", []]'
    named = fingerprint("a/b", "validation", None, "v1", "lines", "text", None)
    assert named == '["a/b", "validation", "v1", "lines", []]'
    others = [
        fingerprint("a/b", "train", column="body"),
        fingerprint("a/b", "train", config="x"),
        fingerprint("a/b", "train", column="x"),
        fingerprint("a/b", "test"),
    ]
    assert len({fingerprint("a/b", "train"), *others}) == 5


def test_commands_take_column_configuration_and_split(copy, tmp_path, base_model):
    for folder in copy.iterdir():
        for split, n in (("train", 3), ("validation", 4), ("test", 5)):
            texts = [f"the lady of the {folder.name} saw a {split} garden by the sea at night"] * n
            write_rows(folder / f"{split}-00000-of-00001.parquet", texts)
    options = f"--corpus {copy} --corpus_config small-v1 --corpus_column body --corpus_split test"
    options = [*options.split(), "--output_dir", str(tmp_path / "out")]
    assert main(["tokenizer", "train", "--vocab_size", "60", *options]) == 0
    sizes = "--hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --max_position_embeddings 16"
    run = f"--max_steps 1 --save_strategy no --use_cpu true --disable_tqdm true --tokenizer {base_model}"
    assert main(["pretrain", *options, *sizes.split(), *run.split()]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())[0]
    assert (found["details"]["train_documents"], found["n_examples"]) == (5, 4)
    scored = f"evaluate --model {base_model} --text_file {copy} --corpus_config small-v1 --corpus_column body"
    assert main([*scored.split(), "--split", "test", "--output_dir", str(tmp_path / "scores")]) == 0
    assert json.loads((tmp_path / "scores" / "results.json").read_text())[0]["n_examples"] == 5


def test_a_validation_split_that_is_trained_on_is_not_also_held_out(copy, tmp_path, base_model):
    from gpt1_hf.checkpoints.loading import open_tokenizer
    from gpt1_hf.training.arguments import PretrainArguments
    from gpt1_hf.training.pretrain import token_streams

    names = {"corpus": str(copy), "corpus_config": "small-v1", "corpus_split": "validation"}
    args = PretrainArguments(**names, output_dir=str(tmp_path / "run"), use_cpu=True)
    train, held_out = token_streams(args, open_tokenizer(base_model))
    whole = TokenStream.load(tmp_path / "run" / "tokens" / "train")
    assert [*train.tokens, *held_out.tokens] == whole.tokens.tolist()
    assert [folder.name for folder in (tmp_path / "run" / "tokens").iterdir() if folder.is_dir()] == ["train"]
    # The same data set, named as the validation corpus, means its validation split.
    args.corpus_split, args.validation_corpus = "train", str(copy)
    train, held_out = token_streams(args, open_tokenizer(base_model))
    assert held_out.tokens.tolist() == whole.tokens.tolist()
