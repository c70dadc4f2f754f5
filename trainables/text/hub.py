"""Data sets of the Hugging Face hub, read with the optional package ``datasets`` where there is a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import DataError
from trainables.text.pack import Document


@dataclass(frozen=True)
class Hub:
    """A data set of the hub, pinned to a commit, or a local folder of the same form without a revision."""

    repository: str
    config: str
    revision: str | None


_INSTEAD = "text that comes from elsewhere: wiki, books"
TINYSTORIES = Hub("roneneldan/TinyStories", "default", None)
"""Not pinned: what was fetched is told by the digest of the set that is made of it."""


def columns(hub: Hub, name: str, splits: Sequence[str], downloads: Path) -> list[Iterable[str]]:
    """Column ``text`` of each split, fetched into ``downloads`` if it is not there.

    Raises `DataError` without the package or without the data; ``name`` is the corpus as the user knows it.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name} is read with the package datasets, which is not installed: pip install 'datasets>=3'; {_INSTEAD}"
        ) from error
    try:
        loaded = datasets.load_dataset(
            hub.repository, hub.config, revision=hub.revision, cache_dir=str(downloads / "datasets")
        )
        return [loaded[split]["text"] for split in splits]
    # What the hub's client raises without a network differs from release to release; these are their common bases.
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{hub.repository} ({hub.config}) cannot be had: {last_line(error)}; {_INSTEAD}") from error


def stories(hub: Hub, downloads: Path) -> Iterator[Document]:
    """The stories of TinyStories, one a row; raises as `columns`."""
    splits = columns(hub, "tinystories", ("train", "validation"), downloads)
    return numbered(splits)


def numbered(splits: Iterable[Iterable[str]]) -> Iterator[Document]:
    """Rows as documents, each with its number over all splits for a key."""
    number = 0
    for rows in splits:
        for row in rows:
            yield f"tinystories/{number}", row
            number += 1


def last_line(error: Exception) -> str:
    """The last line of what an error says, or what it is."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
