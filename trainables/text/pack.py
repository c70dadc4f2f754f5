"""Documents in, packed tokens out: drop duplicates, split by document, train a BPE, encode, write.

The one way from (key, text) pairs to the files of a data set. They are written beside and renamed, the side-car last:
what was cut off has no side-car.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainables.api import Progress
from trainables.errors import DataError
from trainables.files import beside, replacing, sha256, write_atomic
from trainables.text.sidecar import (
    ARRAYS,
    FILES,
    SIDECAR,
    SPLITS,
    TOKENIZER,
    Sidecar,
    Source,
    SplitCounts,
    SplitName,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Document = tuple[str, str]
"""(key, text); the key decides the split."""
_END_OF_TEXT = "<|endoftext|>"
DEFAULT_VOCAB_SIZE = 4096
BYTE_VOCAB_SIZE = 257
"""The 256 bytes and the end of text: a vocabulary in which each byte is a token."""
_VOCAB_BOUNDS = (BYTE_VOCAB_SIZE, 1_000_000)
"""Above 65,536 a token takes four bytes."""
_MIN_FREQUENCY = 2
# In characters. A batch is enough for all cores; a piece is what one of them takes.
_BATCH, _PIECE = 1 << 20, 1 << 16
_BLANK_LINES = re.compile(r"\n{3,}")
_BETWEEN_WORDS = re.compile(r"(?<=\S)(?= \S)")


@dataclass
class _Tally:
    """What was counted of one split so far; ``bytes`` of UTF-8 text, ends of text not counted."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class About:
    """What documents are: licence and sources of the whole.

    Attributes:
        missing: parts of a mixture that could not be had, with the reason.
        least_bytes: of different text, below which no set is made.
    """

    licence: str
    sources: tuple[Source, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    least_bytes: int = 0


@dataclass(frozen=True)
class _Staged:
    """Documents that stay, in one JSON line each ([split, text]), and what was counted on the way."""

    path: Path
    splits: Mapping[SplitName, _Tally]
    duplicates: int
    empty: int

    def texts(self, *only: SplitName) -> Iterator[tuple[SplitName, str]]:
        """(split, text) of the documents in the splits ``only``, in their order."""
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                split, text = json.loads(line)
                if split in only:
                    yield split, text


def split_of(key: str) -> SplitName:
    """The split of the document called ``key``: SHA-1 of the key mod 100, below 10 val, below 20 test, else train."""
    bucket = int.from_bytes(hashlib.sha1(key.encode()).digest()) % 100
    return "val" if bucket < 10 else "test" if bucket < 20 else "train"


def normalised(text: str) -> str:
    """``text`` with one kind of line end, no blanks at the end of lines, at most one blank line in a row, and no edges.

    Indentation and blanks within a line stay, because code and verse mean something by them. Lone surrogates, which
    have no UTF-8, become question marks.
    """
    lines = (line.rstrip() for line in text.encode("utf-8", "replace").decode().splitlines())
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def check_vocab_size(vocab_size: int) -> None:
    """Raise `DataError` unless a byte-level vocabulary can have that size."""
    low, high = _VOCAB_BOUNDS
    if not low <= vocab_size <= high:
        raise DataError(f"vocab_size = {vocab_size}: allowed are {low} (256 bytes and the end of text) to {high}")


def _stage(documents: Iterable[Document], path: Path, name: str) -> _Staged:
    """Write the documents of ``name`` that are neither empty nor seen before to ``path``, each with its split.

    Two texts are the same if they are so up to whitespace; the first one stays, so that no text is in two splits.
    Raises `DataError` if a split would be empty.
    """
    seen: set[bytes] = set()
    counts = {split: _Tally() for split in SPLITS}
    duplicates = empty = 0
    with path.open("w", encoding="utf-8") as file:
        for key, raw in documents:
            text = normalised(raw)
            digest = hashlib.sha256(" ".join(text.split()).encode()).digest()[:16]
            if not text:
                empty += 1
            elif digest in seen:
                duplicates += 1
            else:
                seen.add(digest)
                split = split_of(key)
                counts[split].documents += 1
                counts[split].bytes += len(text.encode())
                file.write(json.dumps([split, text], ensure_ascii=False) + "\n")
    if not all(count.documents for count in counts.values()):
        have = ", ".join(f"{split} {count.documents}" for split, count in counts.items())
        raise DataError(
            f"data set {name!r}: a split by document needs documents in each of train, val and test, but {len(seen)} "
            f"different ones gave {have}; add documents (about 100 are enough)"
        )
    return _Staged(path, counts, duplicates, empty)


def pieces(text: str, size: int) -> Iterator[str]:
    """``text`` in pieces of ``size`` characters or little more, that have the tokens of the whole.

    The tokenizer takes a hundred times the memory of what it is given at once, so that long documents come in pieces.
    They are cut before a single blank between two words, where the word pattern of GPT-2 always cuts.
    """
    start = 0
    while start < len(text):
        blank = _BETWEEN_WORDS.search(text, start + size)
        end = blank.start() if blank else len(text)
        yield text[start:end]
        start = end


def trained_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of exactly ``vocab_size`` tokens, the end of text first; the same texts give the same one.

    Source: Sennrich et al. 2016 (arXiv 1508.07909) over bytes with the word pattern of GPT-2 (Radford et al. 2019).
    Raises `DataError` if the texts have too few repeated pairs for so many tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_FREQUENCY,
        special_tokens=[_END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    size = tokenizer.get_vocab_size()
    if size != vocab_size:
        raise DataError(f"vocab_size = {vocab_size}: the training split gives {size} tokens and no more; ask for fewer")
    return tokenizer


class _Meter:
    """Progress in kB of text: what was read of the ``total`` bytes that will be."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add(self, num_bytes: int) -> None:
        """Count ``num_bytes`` more."""
        self._done += num_bytes
        if self._progress is not None:
            self._progress(self._done // 1000, self._total // 1000)

    def count(self, texts: Iterable[str]) -> Iterator[str]:
        """``texts``, counted as they are taken."""
        for text in texts:
            yield text
            self.add(len(text.encode()))


def pack(
    documents: Iterable[Document],
    folder: Path,
    *,
    name: str,
    vocab_size: int,
    about: About,
    pretrained: Tokenizer | None = None,
    progress: Progress | None = None,
) -> None:
    """Make the data set ``name`` in ``folder``; a set that is there is replaced.

    Args:
        documents: (key, text); the key decides the split.
        folder: made if missing.
        name: for messages and the side-car.
        vocab_size: of the tokenizer, the end of text included.
        about: what the documents are.
        pretrained: a tokenizer of that size; without it one is trained on the training split.
        progress: called with (done, total) kB of text that the tokenizer has learnt from or encoded.

    Raises:
        DataError: a split would be empty, there is too little text, or ``vocab_size`` does not fit.
    """
    check_vocab_size(vocab_size)
    if pretrained is not None and pretrained.get_vocab_size() != vocab_size:
        raise DataError(f"vocab_size = {vocab_size}: the tokenizer given has {pretrained.get_vocab_size()}")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = beside(folder / "documents")
    try:
        staged = _stage(documents, temporary, name)
        _check_bytes(staged, name, about)
        learnt = 0 if pretrained is not None else staged.splits["train"].bytes
        meter = _Meter(progress, learnt + sum(count.bytes for count in staged.splits.values()))
        tokenizer = pretrained
        if tokenizer is None:
            learnt_from = (piece for _, text in staged.texts("train") for piece in pieces(text, _PIECE))
            tokenizer = trained_tokenizer(meter.count(learnt_from), vocab_size)
        _encode(staged, tokenizer, folder, meter)
    finally:
        temporary.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    _write_sidecar(folder, name, staged, tokenizer, about)


def _check_bytes(staged: _Staged, name: str, about: About) -> None:
    size = sum(count.bytes for count in staged.splits.values())
    if size < about.least_bytes:
        missing = "".join(f"\n  without {part}: {why}" for part, why in about.missing.items())
        raise DataError(
            f"data set {name!r}: {size / 1e6:.1f} MB of different text came together, {about.least_bytes / 1e6:g} MB "
            f"are needed{missing}"
        )


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 up to 65,536 tokens, else uint32; little-endian."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def _encode(staged: _Staged, tokenizer: Tokenizer, folder: Path, meter: _Meter) -> None:
    """Write the tokenizer, and tokens and starts of every split, and count tokens; an older side-car goes."""
    # Documents are data: the end of text, spelt out in a document, must not end it.
    tokenizer.encode_special_tokens = True
    dtype, end = token_dtype(tokenizer.get_vocab_size()), _end_of_text(tokenizer)
    with ExitStack() as stack:
        files = {name: stack.enter_context(replacing(folder / name)) for name in ARRAYS}
        for batch in _batches(staged.texts(*SPLITS)):
            encodings = tokenizer.encode_batch_fast([piece.text for piece in batch], add_special_tokens=False)
            for piece, encoding in zip(batch, encodings, strict=True):
                count = staged.splits[piece.split]
                if piece.begins:
                    files[f"{piece.split}.starts"].write(np.array([count.tokens], dtype="<i8").tobytes())
                tokens = [*encoding.ids, end] if piece.ends else encoding.ids
                files[f"{piece.split}.bin"].write(np.array(tokens, dtype=dtype).tobytes())
                count.tokens += len(tokens)
                meter.add(len(piece.text.encode()))
        for file in files.values():
            _flush(file)
        # All that takes room is written. From here on the files are not those that an older side-car vouches for.
        (folder / SIDECAR).unlink(missing_ok=True)
        write_atomic(folder / TOKENIZER, tokenizer.to_str(pretty=True))


def _end_of_text(tokenizer: Tokenizer) -> int:
    token = tokenizer.token_to_id(_END_OF_TEXT)
    if token is None:
        raise DataError(f"the tokenizer has no token {_END_OF_TEXT}")
    return int(token)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


class _Piece(NamedTuple):
    """Part of a document, or all of it."""

    split: SplitName
    text: str
    begins: bool
    ends: bool


def _batches(texts: Iterable[tuple[SplitName, str]]) -> Iterator[list[_Piece]]:
    """About a megabyte at a time, so that memory stays flat."""
    batch, size = [], 0
    for split, text in texts:
        at = 0
        for piece in pieces(text, _PIECE):
            batch.append(_Piece(split, piece, begins=at == 0, ends=at + len(piece) == len(text)))
            at += len(piece)
            size += len(piece)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _write_sidecar(folder: Path, name: str, staged: _Staged, tokenizer: Tokenizer, about: About) -> None:
    import tokenizers

    vocab_size = tokenizer.get_vocab_size()
    sidecar = Sidecar(
        sha256="",
        name=name,
        vocab_size=vocab_size,
        dtype="uint16" if token_dtype(vocab_size).itemsize == 2 else "uint32",
        end_of_text=_end_of_text(tokenizer),
        files={file: sha256(folder / file) for file in FILES},
        splits={split: SplitCounts(**asdict(count)) for split, count in staged.splits.items()},
        duplicates=staged.duplicates,
        empty=staged.empty,
        licence=about.licence,
        sources=about.sources,
        missing=dict(about.missing),
        versions={"tokenizers": tokenizers.__version__},
    )
    sidecar = sidecar.model_copy(update={"sha256": sidecar.seen_digest()})
    write_atomic(folder / SIDECAR, sidecar.model_dump_json(indent=2) + "\n")
