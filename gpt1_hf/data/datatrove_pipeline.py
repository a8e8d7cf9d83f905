"""Token streams of corpora beyond one machine: the reading and tokenizing of `corpus.py` as a datatrove pipeline.

The stream is byte for byte the one that [`build_token_stream`] writes, with the same fingerprint, so that
`gpt1 pretrain` finds and reuses it. `recipes/scale.py` runs it on one machine. On a cluster, whose nodes share the
file system and have this package, the same two pipelines go to datatrove's executor for it (not run):

```python
from datatrove.executor import SlurmPipelineExecutor  # or RayPipelineExecutor, with options of its own

tokenize, merge, work = token_pipelines("me/corpus", tokenizer, "runs/big/tokens/train", tasks=64)
node = {"time": "04:00:00", "partition": "cpu"}
tokens = SlurmPipelineExecutor(tokenize, tasks=64, logging_dir=f"{work}/logs", **node)
SlurmPipelineExecutor(merge, tasks=1, depends=tokens, logging_dir=f"{work}/merge-logs", **node).run()
```

Run again after a break, it does what is missing: datatrove skips the tasks that it has logged as complete, and a shard
is moved into place only when whole. Files are what the tasks share out: one large file is the work of one task. The
folder `work` can be removed when the stream is there.
"""

import shutil
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import GPT1Error
from .token_stream import (
    INDEX,
    LINE_BREAK,
    NO_TEXT,
    TOKENS,
    TokenStream,
    fingerprint,
    read_index,
    read_pieces,
    stream_fingerprint,
    text_files,
    write_index,
    write_once,
    write_token_stream,
)


try:
    from datatrove.data import Document, DocumentsPipeline
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise GPT1Error("corpora beyond one machine are read by datatrove: pip install 'gpt1_hf[scale]'") from error


class CorpusReader(PipelineStep):
    """
    Read a task's part of a corpus; a document of the pipeline is a piece of one of the corpus, see [`read_pieces`].

    Args:
        source (`tuple`):
            Arguments of [`read_pieces`]: corpus, split, data folder, revision, kind of rows.
    """

    type = "READER"
    name = "GPT-1 corpus"

    def __init__(self, source: tuple):
        super().__init__()
        self.source = source

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for number, piece in read_pieces(*self.source, part=(rank, world_size)):
            yield Document(text=piece, id=f"{rank}/{number}", metadata={"number": number})


class TokenShard(PipelineStep):
    """
    Tokenize the pieces of [`CorpusReader`] into a shard, which is a token stream of its own.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer.
        work (`Path`):
            Folder of the shards.
        digest (`str`):
            Fingerprint of the whole stream.
    """

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
    Join the shards, in order, to the stream that `gpt1 pretrain` reads.

    Args:
        work (`Path`):
            Folder of the shards.
        tasks (`int`):
            Number of shards.
        folder (`Path`):
            Where the stream lives.
        digest (`str`):
            Fingerprint of the stream.
        line_break (`int`, *optional*):
            If the shards are parts of one text: the token between them.
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
    """Where the shard of a task lives."""
    return work / f"{rank:05d}"


def shard_index(shard: Path, digest: str) -> dict:
    """
    Index of a whole shard.

    Raises:
        GPT1Error: if the shard is missing, torn, or of another stream.
    """
    if (shard / INDEX).is_file():
        index = read_index(shard)
        size = (index["document_ends"] or [0])[-1] * np.dtype(index["dtype"]).itemsize
        if index["fingerprint"] == digest and (shard / TOKENS).stat().st_size == size:
            return index
    raise GPT1Error(f"the shard {shard} is missing or torn: remove {shard.parent} and build the stream again")


def token_pipelines(
    corpus: str,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    tasks: int,
    split: str = "train",
    data_dir: str | None = None,
    revision: str | None = None,
    rows: str = "documents",
) -> tuple[list[PipelineStep], list[PipelineStep], Path]:
    """
    Pipelines that build a token stream, for datatrove's executors.

    Args:
        corpus (`str`):
            As for [`read_pieces`], and so are `split`, `data_dir`, `revision` and `rows`.
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer.
        folder (`str` or `Path`):
            Where the stream shall live: `<tokens_dir>/train` of `gpt1 pretrain`.
        tasks (`int`):
            Number of tasks of the first pipeline; more than the corpus has files are of no use.

    Returns:
        the pipeline of `tasks` tasks that writes the shards, the one of a single task that then joins them, and the
        folder of the shards, where the logs belong, too: it is another one when corpus, tokenizer or `tasks` change.

    Raises:
        GPT1Error: if the rows are lines of one text and the tokenizer has no token for a line break.
    """
    folder = Path(folder)
    source = (corpus, split, data_dir, revision, rows)
    line_break = None
    if rows == "lines" and not text_files(corpus, data_dir):
        line_break = tokenizer.backend_tokenizer.token_to_id(LINE_BREAK)
        if line_break is None:
            raise GPT1Error(
                "the parts of one text are joined at line breaks, for which this tokenizer has no token; train one "
                "with `gpt1 tokenizer train --corpus_rows lines`, or build the stream on one machine"
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
            How many tasks run at a time; -1 for all.

    Returns:
        [`TokenStream`].
    """
    tokenize, merge, work = token_pipelines(corpus, tokenizer, folder, tasks, **source)
    LocalPipelineExecutor(tokenize, tasks=tasks, workers=workers, logging_dir=str(work / "logs")).run()
    LocalPipelineExecutor(merge, workers=1, logging_dir=str(work / "merge-logs"), skip_completed=False).run()
    return TokenStream.load(folder)
