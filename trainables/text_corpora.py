"""The built-in corpora: what each is, under which licence, where it comes from, and its documents.

What it is: a table, and the documents behind a row of it as (key, text) pairs. Nothing is shipped with this package; a
corpus is fetched at the user's command.
What it is not: splits, tokens and files (`text_pack`).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Document = tuple[str, str]


@dataclass(frozen=True)
class Corpus:
    """One row of the table.

    Attributes:
        name: as configs and the command line spell it.
        summary: what it is, in a clause.
        licence: of the text, as SPDX spells it where it can.
        url: where it can be read about.
        fetched: how it comes here, in a clause.
        megabytes: of text, about, after duplicates are dropped.
    """

    name: str
    summary: str
    licence: str
    url: str
    fetched: str
    megabytes: float


CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="pydoc",
            summary="help topics of the Python language",
            licence="PSF-2.0",
            url="https://docs.python.org/3/reference/",
            fetched="part of every CPython (pydoc_data.topics)",
            megabytes=0.47,
        ),
    )
}


def pydoc_documents() -> Iterator[Document]:
    """The help topics of the running CPython."""
    from pydoc_data.topics import topics

    for topic, text in sorted(topics.items()):
        yield f"pydoc/{topic}", text


def pydoc_version() -> str:
    """Which CPython they are from."""
    return f"CPython {platform.python_version()}"
