"""Text for language models: named sets of packed tokens, split by document, checked before they are used.

The `SOURCE` that families of language models name; `load` memory-maps what it made under ``data_dir/text/<name>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainables.api import DataSetInfo, Progress
from trainables.errors import DataCorrupt, DataError, DataMissing
from trainables.text import corpora as text_corpora
from trainables.text import fetch, wikitext
from trainables.text import folder as text_folder
from trainables.text import pack as text_pack
from trainables.text import sidecar as text_sidecar
from trainables.text.corpora import CORPORA, Corpus, parse_set_name
from trainables.text.sidecar import SPLITS, Sidecar, Source, SplitName

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class TextSplit:
    """One split, memory-mapped and read-only.

    Attributes:
        tokens: (num_tokens,) uint16 or, above a vocabulary of 65,536, uint32: the documents one after the other, each
            followed by an end-of-text token.
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
    """Map a data set and check it against its side-car; a file is hashed once a process, as long as it stays the same.

    Raises:
        DataMissing: it has not been made yet.
        DataCorrupt: its files are not those that its side-car vouches for.
        DataError: they cannot be read.
    """
    sidecar = _verified(name, data_dir)
    folder = _folder(name, data_dir)
    with _on_disk(name, data_dir):
        train, val, test = (_split(folder, split, sidecar) for split in SPLITS)
    return TextData(name, train, val, test, sidecar.vocab_size, sidecar.sha256, sidecar.licence)


def _split(folder: Path, split: SplitName, sidecar: Sidecar) -> TextSplit:
    counts = sidecar.splits[split]
    return TextSplit(
        tokens=np.memmap(folder / f"{split}.bin", text_pack.token_dtype(sidecar.vocab_size), "r"),
        num_documents=counts.documents,
        num_bytes=counts.bytes,
        document_starts=np.memmap(folder / f"{split}.starts", "<i8", "r"),
    )


def tokenizer(name: str, data_dir: Path) -> Tokenizer:
    """The tokenizer of a data set; raises as `load`."""
    _verified(name, data_dir)
    from tokenizers import Tokenizer

    return Tokenizer.from_buffer((_folder(name, data_dir) / text_sidecar.TOKENIZER).read_bytes())


def decode(name: str, data_dir: Path, ids: Sequence[int] | NDArray[np.integer[Any]]) -> str:
    """The text of tokens, ends of text left out; raises as `load`."""
    return tokenizer(name, data_dir).decode([int(token) for token in ids], skip_special_tokens=True)


class _TextSource:
    """The `trainables.api.DataSource` of every family of language models; ``names`` are those of its presets."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        """Make the data set unless it is there and sound; returns its folder.

        What was fetched or read before is used again (``data_dir/text/.downloads``), so an interrupted call goes on
        where it was cut off. ``name`` is a corpus, or one with the size of its vocabulary (``wiki-8192``), or a set
        made by `prepare_folder`; ``progress`` counts kB of text, once all of it is at hand.

        Raises:
            DataError: no set has that name, its text cannot be had, or the disk refuses (full, forbidden).
            DataCorrupt: a set made of one's own files is damaged.
        """
        known = parse_set_name(name)
        if self._is_sound(name, data_dir, replaceable=known is not None):
            return _folder(name, data_dir)
        if known is None:
            raise DataError(
                f"no corpus is called {name!r}; allowed: {', '.join(self.names)}, wiki-8192 (wiki in 8,192 tokens); "
                f"{_command(name)} makes a set of your own files"
            )
        with _on_disk(name, data_dir), fetch.alone(_downloads(data_dir), _folder(name, data_dir)):
            # Another process may have made it meanwhile.
            if not self._is_sound(name, data_dir, replaceable=True):
                _make(name, *known, data_dir, progress)
        return _folder(name, data_dir)

    def _is_sound(self, name: str, data_dir: Path, *, replaceable: bool) -> bool:
        """Whether the set is there and sound; a damaged one that cannot be made again raises `DataCorrupt`."""
        try:
            self.digest(name, data_dir)
            return True
        except DataMissing:
            return False
        except DataCorrupt:
            if not replaceable:
                raise
            return False

    def prepare_folder(
        self,
        folder: Path,
        name: str,
        data_dir: Path,
        *,
        vocab_size: int | None = None,
        text_field: str = "text",
        progress: Progress | None = None,
    ) -> Path:
        """Make the data set ``name`` of the documents in ``folder``, anew if it is there; returns its folder.

        Args:
            folder: of text, JSON and parquet files, see `trainables.text.folder`.
            name: that configs spell it by: letters, digits, dots, dashes and underscores.
            data_dir: root of all data.
            vocab_size: of the tokenizer; 4,096 if None.
            text_field: of JSON records and parquet tables.
            progress: as for `prepare`.
        """
        if not _NAME.fullmatch(name) or parse_set_name(name) is not None:
            raise DataError(
                f"name = {name!r}: allowed are letters, digits, '.', '-' and '_', and no name of a built-in set "
                f"({', '.join(self.names)})"
            )
        licence = "that of your files"
        with _on_disk(name, data_dir), fetch.alone(_downloads(data_dir), _folder(name, data_dir)):
            text_pack.pack(
                text_folder.documents(folder, text_field),
                _folder(name, data_dir),
                name=name,
                vocab_size=text_pack.DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size,
                about=text_pack.About(licence, (Source(name=name, licence=licence, url=str(folder)),)),
                progress=progress,
            )
        return _folder(name, data_dir)

    def digest(self, name: str, data_dir: Path) -> str:
        """SHA-256 of the data set, recomputed and equal to the one recorded; raises as `load`."""
        return _verified(name, data_dir).sha256

    def check(self, config: Any, data_dir: Path) -> None:
        """Raise `DataError` if ``config`` does not fit its data set: the vocabulary, or a window in each split.

        A config without ``vocab_size`` or ``context`` fits in that respect. Raises as `load` as well.
        """
        data = load(config.data, data_dir)
        vocab_size = getattr(config, "vocab_size", data.vocab_size)
        if vocab_size != data.vocab_size:
            raise DataError(f"vocab_size = {vocab_size}: data set {data.name!r} has {data.vocab_size}")
        context = getattr(config, "context", 0)
        for split in SPLITS:
            num_tokens = len(data.split(split).tokens)
            if context + 1 > num_tokens:
                raise DataError(
                    f"context = {context}: the {split} split of data set {data.name!r} has {num_tokens} tokens and a "
                    f"window takes one more than its context; allowed is at most {num_tokens - 1}"
                )

    def companions(self, name: str, data_dir: Path) -> Mapping[str, Path]:
        """The tokenizer, and the side-car with licence and sources; raises as `load`."""
        _verified(name, data_dir)
        folder = _folder(name, data_dir)
        return {file: folder / file for file in (text_sidecar.TOKENIZER, text_sidecar.SIDECAR)}

    def set_name(self, corpus: str, vocab_size: int) -> str:
        """The name of the set that a corpus makes in a vocabulary; raises `DataError` if there is no such corpus."""
        if corpus not in CORPORA:
            raise DataError(f"no corpus is called {corpus!r}; allowed: {', '.join(self.names)}")
        return text_corpora.set_name(CORPORA[corpus], vocab_size)

    def sets(self, data_dir: Path) -> tuple[DataSetInfo, ...]:
        """The built-in corpora, then what else was made in ``data_dir``. Digests are not checked."""
        names = [path.parent.name for path in sorted((data_dir / "text").glob(f"*/{text_sidecar.SIDECAR}"))]
        infos = []
        for name in dict.fromkeys((*CORPORA, *names)):
            with _on_disk(name, data_dir):
                infos.append(_info(name, data_dir))
        return tuple(infos)


SOURCE = _TextSource(CORPORA)
BYTES = _TextSource(text_corpora.set_name(corpus, text_pack.BYTE_VOCAB_SIZE) for corpus in CORPORA.values())
"""The same in bytes; any other vocabulary can be had by its name as well."""
TEXT_AND_BYTES = _TextSource((*SOURCE.names, *BYTES.names))
"""Both, for a family with presets of either."""


def _make(name: str, corpus: Corpus, vocab_size: int, data_dir: Path, progress: Progress | None) -> None:
    """Fetch and pack a built-in set."""
    downloads = _downloads(data_dir)
    opened = text_corpora.open_corpus(corpus, downloads)
    comes_with_it = corpus.tokenizer == "gpt2" and vocab_size == corpus.vocab_size
    pretrained = wikitext.gpt2_tokenizer(downloads) if comes_with_it else None
    text_pack.pack(
        opened.documents,
        _folder(name, data_dir),
        name=name,
        vocab_size=vocab_size,
        about=opened.about,
        pretrained=pretrained,
        progress=progress,
    )


def _info(name: str, data_dir: Path) -> DataSetInfo:
    corpus = CORPORA.get(name)
    try:
        sidecar = text_sidecar.read(_folder(name, data_dir))
    except FileNotFoundError:
        assert corpus is not None
        return DataSetInfo(name, corpus.summary, corpus.licence, corpus.megabytes, f"not made ({corpus.fetched})")
    if sidecar is None:
        return DataSetInfo(name, "", "", 0.0, f"damaged; {_command(name)} makes it anew")
    known = parse_set_name(name)
    splits = sidecar.splits.items()
    num_tokens = sum(counts.tokens for _, counts in splits)
    return DataSetInfo(
        name=name,
        summary=known[0].summary if known else f"made of {sidecar.sources[0].url}",
        licence=known[0].licence if known else sidecar.licence,
        megabytes=sidecar.num_bytes / 1e6,
        state=f"made: {num_tokens / 1e6:.3g} M tokens, vocabulary {sidecar.vocab_size:,}",
        details=(
            f"{sidecar.num_documents:,} documents; dropped: {sidecar.duplicates:,} duplicates, {sidecar.empty:,} empty",
            *(
                f"{split}: {part.documents:,} documents, {part.tokens:,} tokens, {part.bytes:,} B"
                for split, part in splits
            ),
            f"vocabulary {sidecar.vocab_size:,}",
            *(f"from {source.name} {source.version} ({source.licence}), {source.url}" for source in sidecar.sources),
            *(f"without {part}: {why}" for part, why in sidecar.missing.items()),
        ),
    )


def _verified(name: str, data_dir: Path) -> Sidecar:
    """The side-car of a set whose files are as it says; raises as `load`."""
    folder = _folder(name, data_dir)
    with _on_disk(name, data_dir):
        try:
            sidecar = text_sidecar.read(folder)
        except FileNotFoundError:
            raise DataMissing(f"data set {name!r} is not in {folder.parent}; {_command(name)} makes it") from None
        if sidecar is None:
            raise DataCorrupt(f"{folder / text_sidecar.SIDECAR} is no side-car; {_command(name)} makes it anew")
        difference = text_sidecar.difference(folder, sidecar)
    if difference:
        raise DataCorrupt(f"{difference}; {_command(name)} makes it anew")
    return sidecar


@contextmanager
def _on_disk(name: str, data_dir: Path) -> Iterator[None]:
    """Raise `DataError` for what the disk refuses, instead of OSError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"data set {name!r}: {data_dir / 'text'} cannot be read or written ({error})") from error


def _command(name: str) -> str:
    """What makes the set of that name."""
    try:
        known = parse_set_name(name)
    except DataError:
        known = None
    if known is None:
        return f"`tune-rh data FAMILY --folder PATH --name {name}`"
    return f"`tune-rh data FAMILY --corpus {name}`"


def _downloads(data_dir: Path) -> Path:
    return data_dir / "text" / ".downloads"


def _folder(name: str, data_dir: Path) -> Path:
    return data_dir / "text" / name
