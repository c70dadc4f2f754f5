"""Text for language models: named sets of packed tokens, split by document, checked before they are used.

What it is: the `SOURCE` that families of language models name, and `load`, which memory-maps what it made under
``data_dir/text/<name>``.
What it is not: the corpora (`text_corpora`), the making of the files (`text_pack`), or anything that draws windows or
shuffles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainables import text_corpora, text_pack
from trainables.api import Progress
from trainables.errors import DataCorrupt, DataError, DataMissing
from trainables.text_pack import SplitName

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class TextSplit:
    """One split, memory-mapped and read-only.

    Attributes:
        tokens: (num_tokens,) uint16 or, above a vocabulary of 65,536, uint32: the documents one after the other, each
            followed by an end-of-text token.
        num_documents: how many there are.
        num_bytes: UTF-8 bytes of their text, so that nats per token can be told as bits per byte:
            nats * num_tokens / (ln 2 * num_bytes).
        document_starts: (num_documents,) int64, the index in ``tokens`` at which each document begins.
    """

    tokens: np.memmap[Any, np.dtype[Any]]
    num_documents: int
    num_bytes: int
    document_starts: NDArray[np.int64]


@dataclass(frozen=True)
class TextData:
    """A data set in three splits, with the digest that its side-car records."""

    name: str
    train: TextSplit
    val: TextSplit
    test: TextSplit
    vocab_size: int
    digest: str
    licence: str

    def split(self, name: SplitName) -> TextSplit:
        """The split of that name."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def load(name: str, data_dir: Path) -> TextData:
    """Map a data set and check it against its side-car; files are hashed once a process, as long as they do not change.

    Raises:
        DataMissing: it has not been made yet.
        DataCorrupt: its files are not those that its side-car vouches for.
    """
    sidecar = _verified(name, data_dir)
    folder = _folder(name, data_dir)
    dtype = np.dtype(sidecar["dtype"]).newbyteorder("<")
    splits = {
        split: TextSplit(
            tokens=np.memmap(folder / f"{split}.bin", dtype=dtype, mode="r"),
            num_documents=counts["documents"],
            num_bytes=counts["bytes"],
            document_starts=np.memmap(folder / f"{split}.starts", dtype="<i8", mode="r"),
        )
        for split, counts in sidecar["splits"].items()
    }
    return TextData(
        name,
        splits["train"],
        splits["val"],
        splits["test"],
        sidecar["vocab_size"],
        sidecar["sha256"],
        sidecar["licence"],
    )


def tokenizer(name: str, data_dir: Path) -> Tokenizer:
    """The tokenizer of a data set; raises as `load`."""
    _verified(name, data_dir)
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(_folder(name, data_dir) / text_pack.TOKENIZER))


def decode(name: str, data_dir: Path, ids: Sequence[int] | NDArray[np.integer[Any]]) -> str:
    """The text of tokens, ends of text left out; raises as `load`."""
    return str(tokenizer(name, data_dir).decode([int(token) for token in ids], skip_special_tokens=True))


class TextSource:
    """The `trainables.api.DataSource` of every family of language models."""

    names: tuple[str, ...] = tuple(text_corpora.CORPORA)

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        """Make the data set unless it is there and sound; returns its folder.

        Raises:
            DataError: no set has that name.
        """
        folder = _folder(name, data_dir)
        try:
            self.digest(name, data_dir)
        except (DataMissing, DataCorrupt):
            corpus = text_corpora.CORPORA.get(name)
            if corpus is None:
                raise DataError(
                    f"no corpus is called {name!r}; allowed: {', '.join(self.names)}; "
                    f"`tune-rh data FAMILY --folder PATH --name {name}` makes a set of your own files"
                ) from None

            def about() -> Mapping[str, Any]:
                source = {"name": corpus.name, "url": corpus.url, "version": text_corpora.pydoc_version()}
                return {"licence": corpus.licence, "sources": [source]}

            text_pack.pack(
                text_corpora.pydoc_documents(),
                folder,
                name=name,
                vocab_size=text_pack.DEFAULT_VOCAB_SIZE,
                about=about,
                progress=progress,
            )
        return folder

    def digest(self, name: str, data_dir: Path) -> str:
        """SHA-256 of the data set, recomputed and equal to the one recorded; raises as `load`."""
        return str(_verified(name, data_dir)["sha256"])


SOURCE = TextSource()


def _verified(name: str, data_dir: Path) -> Mapping[str, Any]:
    """The side-car of a set whose files are as it says; raises as `load`."""
    folder = _folder(name, data_dir)
    remedy = f"`tune-rh data FAMILY --corpus {name}` makes it anew"
    try:
        sidecar = json.loads((folder / text_pack.SIDECAR).read_text(encoding="utf-8"))
        recorded, files, found = sidecar["sha256"], dict(sidecar["files"]), text_pack.set_digest(sidecar)
        sidecar["licence"], sidecar["splits"]["test"]["bytes"]
    except FileNotFoundError:
        raise DataMissing(
            f"data set {name!r} is not in {folder.parent}; `tune-rh data FAMILY --corpus {name}` makes it"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataCorrupt(f"{folder / text_pack.SIDECAR} is not a side-car of a data set; {remedy}") from error
    if found != recorded:
        raise DataCorrupt(f"{folder / text_pack.SIDECAR} has SHA-256 {found}, it says {recorded}; {remedy}")
    for file in text_pack.FILES:
        try:
            state = (folder / file).stat()
            found = _checked_digest(folder / file, state.st_mtime_ns, state.st_size)
        except FileNotFoundError as error:
            raise DataCorrupt(f"{folder / file} is missing; {remedy}") from error
        if found != files.get(file):
            raise DataCorrupt(f"{folder / file} has SHA-256 {found}, its side-car says {files.get(file)}; {remedy}")
    return dict(sidecar)


@lru_cache(maxsize=256)
def _checked_digest(path: Path, mtime_ns: int, size: int) -> str:
    """A file is hashed again only when its time or its size is another."""
    return text_pack.file_digest(path)


def _folder(name: str, data_dir: Path) -> Path:
    return data_dir / "text" / name
