"""What stands beside packed text: which files it vouches for, what is in them, and where it came from.

A set is a folder with, for each split, ``<split>.bin`` (tokens, each document followed by an end-of-text token) and
``<split>.starts`` (int64, the token at which each document begins), with ``tokenizer.json`` and the side-car
``data.json``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from trainables.config import FrozenConfig, canonical_digest
from trainables.files import sha256

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
SIDECAR, TOKENIZER = "data.json", "tokenizer.json"
ARRAYS = tuple(f"{split}.{kind}" for split in SPLITS for kind in ("bin", "starts"))
FILES = (TOKENIZER, *ARRAYS)
"""All that a side-car vouches for."""


class SplitCounts(FrozenConfig):
    """What is in one split; ``bytes`` of UTF-8 text, ends of text not counted."""

    documents: int
    tokens: int
    bytes: int


class Source(FrozenConfig):
    """What documents were read from; ``sha256`` of the file, where it is one."""

    name: str
    licence: str
    url: str
    version: str = ""
    sha256: str = ""


class Sidecar(FrozenConfig):
    """The side-car of a set.

    Attributes:
        sha256: over what a model and its metrics see: files, vocabulary, form of tokens, counts (`seen_digest`).
        format: of the folder; another one is read by another version.
        vocab_size: of the tokenizer, the end of text included.
        end_of_text: the token after each document.
        files: SHA-256 of each of `FILES`.
        duplicates, empty: documents dropped because they say the same as an earlier one, or nothing.
        missing: parts of a mixture that could not be had, with the reason.
        versions: of what made it.
    """

    sha256: str
    format: Literal[1] = 1
    name: str
    vocab_size: int
    dtype: Literal["uint16", "uint32"]
    end_of_text: int
    files: dict[str, str]
    splits: dict[SplitName, SplitCounts]
    duplicates: int
    empty: int
    licence: str
    sources: tuple[Source, ...]
    missing: dict[str, str]
    versions: dict[str, str]

    def seen_digest(self) -> str:
        """What ``sha256`` has to be."""
        seen = {"format", "vocab_size", "dtype", "end_of_text", "files", "splits"}
        return canonical_digest(self.model_dump(mode="json", include=seen))

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of text in all splits."""
        return sum(counts.bytes for counts in self.splits.values())

    @property
    def num_documents(self) -> int:
        """Documents in all splits."""
        return sum(counts.documents for counts in self.splits.values())


def read(folder: Path) -> Sidecar | None:
    """The side-car in ``folder``; None if what is there is no side-car. Raises FileNotFoundError."""
    try:
        sidecar = Sidecar.model_validate_json((folder / SIDECAR).read_bytes())
    except ValidationError:
        return None
    return sidecar if sidecar.splits.keys() == set(SPLITS) and sidecar.files.keys() == set(FILES) else None


def difference(folder: Path, sidecar: Sidecar) -> str:
    """How the files in ``folder`` differ from what their side-car says, in a clause; empty if they do not.

    A file is hashed once a process, and again if its time or its size is another.
    """
    if sidecar.seen_digest() != sidecar.sha256:
        return f"{folder / SIDECAR} has SHA-256 {sidecar.seen_digest()} over its facts, and says {sidecar.sha256}"
    for name, recorded in sidecar.files.items():
        try:
            state = (folder / name).stat()
            digest = _remembered_digest(folder / name, state.st_mtime_ns, state.st_size)
        except FileNotFoundError:
            return f"{folder / name} is missing"
        if digest != recorded:
            return f"{folder / name} has SHA-256 {digest}, its side-car says {recorded}"
    return ""


@lru_cache(maxsize=256)
def _remembered_digest(path: Path, mtime_ns: int, size: int) -> str:
    return sha256(path)
