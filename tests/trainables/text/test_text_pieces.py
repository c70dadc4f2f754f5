"""Long documents are tokenised in pieces: the tokens of the whole, in the memory of a batch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.text import text_sets
from trainables.text import pack as text_pack
from trainables.text.pack import About, normalised, trained_tokenizer
from trainables.text.sidecar import Source
from trainables.text.source import load

ABOUT = About("CC0-1.0", (Source(name="made up", licence="CC0-1.0", url="nowhere"),))


def test_pieces_of_a_long_document_have_the_tokens_of_the_whole() -> None:
    rng = random.Random(0)
    signs = [*("word", "don't", "Ünï", "12", "...", "<|endoftext|>"), *"\n\t\x1c\u00a0\u2028 ", "\n\n", "  "]
    text = "".join(rng.choices(signs, k=3000)) + " ".join(rng.choices(signs, k=3000))
    tokenizer = trained_tokenizer([text], 300)
    tokenizer.encode_special_tokens = True
    whole = tokenizer.encode(text).ids
    for size in (1, 7, 500, 10**6):
        pieces = list(text_pack.pieces(text, size))
        assert "".join(pieces) == text
        assert [token for piece in pieces for token in tokenizer.encode(piece).ids] == whole
    assert len(list(text_pack.pieces(text, 7))) > 300
    assert list(text_pack.pieces("a bb cc dd", 2)) == ["a bb", " cc", " dd"]
    assert list(text_pack.pieces("x" * 50, 4)) == ["x" * 50]


def test_a_document_longer_than_a_piece_is_packed_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*text_sets.documents(), "\n".join(text_sets.documents(seed=1))]
    digest = text_sets.make(tmp_path, "whole", texts=texts)
    monkeypatch.setattr(text_pack, "_PIECE", 100)
    monkeypatch.setattr(text_pack, "_BATCH", 1000)
    assert text_sets.make(tmp_path, "cut", texts=texts) == digest


def test_never_more_than_a_batch_of_a_long_document_is_encoded_at_once(tmp_path: Path) -> None:
    """An encoding takes over a hundred times the memory of its text."""
    tokenizer = trained_tokenizer(["some words"], 257)
    sizes = []

    class Watched:
        """The tokenizer, with an eye on what is asked of it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
            sizes.append(sum(map(len, texts)))
            return tokenizer.encode_batch_fast(texts, **options)

    text = " ".join(text_sets.documents(12_000))
    documents = [("a", text), ("val2", "x"), ("r", "y")]  # SHA-1 mod 100 of these keys is 52, 6 and 11
    watched: Any = Watched()
    text_pack.pack(documents, tmp_path / "text" / "set", name="set", vocab_size=257, about=ABOUT, pretrained=watched)
    train = load("set", tmp_path).train
    assert train.num_bytes == len(train.tokens) - 1 == len(normalised(text))
    assert len(sizes) > 2
    assert max(sizes) < 1.1e6
