"""Token streams of corpora too large for one machine: reading and tokenizing as datatrove pipelines.

The stream is byte for byte the one that [`build_token_stream`] writes, with the same fingerprint, so that
`gpt1 pretrain` finds and reuses it. `recipes/scale.py` runs the pipelines on one machine. On a cluster with this
package and a shared file system, give them to datatrove's executor for that cluster (not tested):

```python
from datatrove.executor import SlurmPipelineExecutor  # or RayPipelineExecutor, with its own options

tokenize, merge, work = token_pipelines("me/corpus", tokenizer, "runs/big/tokens/train", tasks=64)
node = {"time": "04:00:00", "partition": "cpu"}
tokens = SlurmPipelineExecutor(tokenize, tasks=64, logging_dir=f"{work}/logs", **node)
SlurmPipelineExecutor(merge, tasks=1, depends=tokens, logging_dir=f"{work}/merge-logs", **node).run()
```

After an interruption, run the same code again: datatrove skips the tasks that it has logged as complete, and a shard's
folder appears only when the shard is complete. Tasks divide the corpus by files, so a single large file is not
divided. Delete the folder `work` once the stream exists.
"""

import shutil
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import GPT1Error
from .corpus import TEXT_COLUMN, fingerprint, read_pieces, text_files
from .token_stream import (
    INDEX,
    LINE_BREAK,
    NO_TEXT,
    TOKENS,
    TokenStream,
    read_index,
    stream_fingerprint,
    write_index,
    write_once,
    write_token_stream,
)


try:
    from datatrove.data import Document, DocumentsPipeline
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise GPT1Error("building token streams in parallel needs datatrove: pip install 'gpt1_hf[scale]'") from error


class CorpusReader(PipelineStep):
    """Read a task's part of a corpus. The pipeline's "documents" are pieces of documents, see [`read_pieces`]."""

    type = "READER"
    name = "GPT-1 corpus"

    def __init__(self, source: tuple):
        super().__init__()
        self.source = source

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for number, piece in read_pieces(*self.source, part=(rank, world_size)):
            yield Document(text=piece, id=f"{rank}/{number}", metadata={"number": number})


class TokenShard(PipelineStep):
    """Tokenize a task's pieces into a shard: a token stream with the fingerprint of the whole stream."""

    type = "TOKENIZER"
    name = "GPT-1 token shard"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, work: Path, digest: str):
        super().__init__()
        self.tokenizer = tokenizer
        self.work = work
        self.digest = digest

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        pieces = ((document.metadata["number"], document.text) for document in data)

        def write(unfinished: Path):
            self.stat_update("tokens", value=write_token_stream(pieces, self.tokenizer, unfinished, self.digest))

        write_once(write, shard_folder(self.work, rank), self.digest)
        yield from ()


class MergeShards(PipelineStep):
    """
    Concatenate the shards, in order, into the stream that `gpt1 pretrain` reads. If they are parts of a single text,
    `line_break` is the token between them.
    """

    type = "TOKENIZER"
    name = "GPT-1 token merger"

    def __init__(self, work: Path, tasks: int, folder: Path, digest: str, line_break: int | None = None):
        super().__init__()
        self.work = work
        self.tasks = tasks
        self.folder = folder
        self.digest = digest
        self.line_break = line_break

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        write_once(self.write, self.folder, self.digest)
        yield from ()

    def write(self, unfinished: Path):
        shards = [shard_folder(self.work, rank) for rank in range(self.tasks)]
        indices = [shard_index(shard, self.digest) for shard in shards]
        dtype = indices[0]["dtype"]
        ends, sizes, n_tokens = [], [], 0
        unfinished.mkdir(parents=True)
        with open(unfinished / TOKENS, "wb") as file:
            for shard, index in zip(shards, indices, strict=True):
                shard_tokens = (index["document_ends"] or [0])[-1]
                if self.line_break is not None and n_tokens and shard_tokens:
                    file.write(np.asarray(self.line_break, dtype=dtype).tobytes())
                    n_tokens += 1
                with open(shard / TOKENS, "rb") as part:
                    shutil.copyfileobj(part, file)
                ends += [n_tokens + end for end in index["document_ends"]]
                sizes += index["document_chars"]
                n_tokens += shard_tokens
        if not n_tokens:
            raise GPT1Error(NO_TEXT)
        if self.line_break is not None:
            ends, sizes = [n_tokens], [sum(size + 1 for size in sizes) - 1]
        write_index(unfinished, self.digest, dtype, ends, sizes)


def shard_folder(work: Path, rank: int) -> Path:
    """Folder of a task's shard."""
    return work / f"{rank:05d}"


def shard_index(shard: Path, digest: str) -> dict:
    """
    Index of a complete shard.

    Raises:
        GPT1Error: if the shard is missing, incomplete, or belongs to another stream.
    """
    if (shard / INDEX).is_file():
        index = read_index(shard)
        size = (index["document_ends"] or [0])[-1] * np.dtype(index["dtype"]).itemsize
        if index["fingerprint"] == digest and (shard / TOKENS).stat().st_size == size:
            return index
    raise GPT1Error(f"the shard {shard} is missing or incomplete: delete {shard.parent} and build the stream again")


def token_pipelines(
    corpus: str,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    tasks: int,
    split: str = "train",
    data_dir: str | None = None,
    revision: str | None = None,
    rows: str = "documents",
    column: str = TEXT_COLUMN,
    config: str | None = None,
) -> tuple[list[PipelineStep], list[PipelineStep], Path]:
    """
    Pipelines that build a token stream, for datatrove's executors.

    Args:
        corpus (`str`), split, data_dir, revision, rows, column, config:
            As in [`read_pieces`].
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer.
        folder (`str` or `Path`):
            Folder of the stream: `<tokens_dir>/train` of `gpt1 pretrain`.
        tasks (`int`):
            Number of tasks of the first pipeline, at most the number of files of the corpus.

    Returns:
        `tuple`: the pipeline that writes the shards, in `tasks` tasks; the pipeline that then merges them, in one
        task; and the folder for shards and logs, which differs for each corpus, tokenizer and `tasks`.

    Raises:
        GPT1Error: if the rows are lines of a single text and the tokenizer has no line-break token.
    """
    folder = Path(folder)
    source = (corpus, split, data_dir, revision, rows, column, config)
    line_break = None
    if rows == "lines" and not text_files(corpus, data_dir, config):
        line_break = tokenizer.backend_tokenizer.token_to_id(LINE_BREAK)
        if line_break is None:
            raise GPT1Error(
                "the parts of a single text are joined by a line-break token, which this tokenizer does not have: "
                "train one with `gpt1 tokenizer train --corpus_rows lines`, or build the stream on one machine"
            )
    digest = stream_fingerprint(fingerprint(*source), tokenizer)
    work = folder.with_name(folder.name + ".shards") / f"{digest[:16]}-{tasks}"
    tokenize = [CorpusReader(source), TokenShard(tokenizer, work, digest)]
    return tokenize, [MergeShards(work, tasks, folder, digest, line_break)], work


def build_with_datatrove(
    corpus: str, tokenizer: PreTrainedTokenizerBase, folder: str | Path, tasks: int, workers: int = -1, **source
) -> TokenStream:
    """
    Build a token stream in several processes of this machine; see [`token_pipelines`].

    Args:
        workers (`int`, *optional*, defaults to -1):
            Number of tasks that run at the same time; -1 runs all.

    Returns:
        [`TokenStream`].
    """
    tokenize, merge, work = token_pipelines(corpus, tokenizer, folder, tasks, **source)
    LocalPipelineExecutor(tokenize, tasks=tasks, workers=workers, logging_dir=str(work / "logs")).run()
    LocalPipelineExecutor(merge, workers=1, logging_dir=str(work / "merge-logs"), skip_completed=False).run()
    return TokenStream.load(folder)
