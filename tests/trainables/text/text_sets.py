"""Small sets of made-up text, for tests of whatever reads packed tokens."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow
from pyarrow import parquet

from trainables.text.source import SOURCE

WORDS = ("river", "stone", "under", "glass", "winter", "seven", "lantern", "quiet", "market", "harbour", "violet", "of")


def documents(count: int = 200, seed: int = 0) -> list[str]:
    """Texts of 20 to 60 words, all different."""
    rng = random.Random(seed)
    return [f"{n}. {' '.join(rng.choices(WORDS, k=rng.randint(20, 60)))}\n" for n in range(count)]


def write_texts(folder: Path, texts: list[str]) -> Path:
    """A file a document."""
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / f"{number:04}.txt").write_text(text)
    return folder


def write_lines(folder: Path, texts: list[str]) -> Path:
    """One file of JSON lines."""
    folder.mkdir(parents=True)
    (folder / "all.jsonl").write_text(
        "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts))
    )
    return folder


def write_table(folder: Path, texts: list[str]) -> Path:
    """One parquet file."""
    folder.mkdir(parents=True)
    parquet.write_table(pyarrow.table({"id": list(range(len(texts))), "text": texts}), folder / "all.parquet")
    return folder


def make(data_dir: Path, name: str = "mine", *, vocab_size: int = 300, texts: list[str] | None = None) -> str:
    """Make the set ``name``; returns its digest."""
    folder = write_texts(data_dir / f"{name}-files", documents() if texts is None else texts)
    SOURCE.prepare_folder(folder, name, data_dir, vocab_size=vocab_size)
    return SOURCE.digest(name, data_dir)
