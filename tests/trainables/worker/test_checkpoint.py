"""Checkpoints: what is saved is loaded, what is damaged is noticed, and what is kept is what is needed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worlds.checkpoints import rewrite
from trainables.errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch
from trainables.worker.checkpoint import (
    INDEX,
    STATE,
    WEIGHTS,
    linked,
    load,
    load_latest,
    point,
    prune,
    read_index,
    save,
    steps,
)
from tune_rh.errors import storage_problem

FACTS = {"family": "scripted", "config_digest": "abc", "metrics": {"val_loss": 0.5}}


def state(value: float) -> dict[str, Any]:
    weight = torch.full((3, 2), value)
    return {
        "model": {"weight": weight, "tied": weight, "turned": torch.arange(6.0).reshape(2, 3).t()},
        "optimizer": {"state": {0: {"moment": torch.full((2,), value, dtype=torch.float64)}}, "groups": [{"lr": 0.1}]},
        "rng": torch.get_rng_state(),
        "step": int(value),
        "name": "x",
    }


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def no_warning(folder: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_latest(folder, **options)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    given = state(7)
    path = save(tmp_path, 70, given, FACTS)
    assert path == tmp_path / "step-00000070"
    got, index = load(path, config_digest="abc")
    assert got.keys() == given.keys()
    assert all(torch.equal(got["model"][name], tensor) for name, tensor in given["model"].items())
    assert got["optimizer"]["state"][0]["moment"].dtype == torch.float64
    torch.testing.assert_close(got["optimizer"], given["optimizer"], rtol=0, atol=0)
    assert torch.equal(got["rng"], given["rng"])
    assert (got["step"], got["name"]) == (7, "x")
    assert index.items() >= {"schema": 1, "step": 70, **FACTS}.items()
    assert sorted(p.name for p in path.iterdir()) == [INDEX, WEIGHTS, STATE]
    assert index["sha256"].keys() == {WEIGHTS, STATE}
    assert linked(tmp_path, "latest") == path
    assert linked(tmp_path, "best") is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000070"]


def test_a_step_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    save(tmp_path, 10, state(1), FACTS)
    save(tmp_path, 10, state(2), FACTS)
    assert load(tmp_path / "step-00000010")[0]["step"] == 1


def test_nothing_saved_is_nothing_to_load(tmp_path: Path) -> None:
    assert no_warning(tmp_path / "absent") is None
    assert no_warning(tmp_path) is None
    assert steps(tmp_path / "absent") == []


def test_the_newest_is_loaded(tmp_path: Path) -> None:
    for step in (100, 20, 99_999_999):
        save(tmp_path, step, state(step), FACTS)
    found = no_warning(tmp_path, config_digest="abc")
    assert found is not None
    assert found[1]["step"] == 99_999_999


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
def test_a_changed_or_missing_file_is_corrupt(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 10, state(1), FACTS)
    damage(path / name)
    with pytest.raises(CheckpointCorrupt, match=f"{name}: digest [0-9a-f]{{12}}, recorded [0-9a-f]{{12}}"):
        load(path)
    (path / name).unlink()
    with pytest.raises(CheckpointCorrupt, match=f"{name}: digest missing"):
        load(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"sha256": 3}', None])
def test_an_index_that_cannot_be_read_is_corrupt(tmp_path: Path, content: str | None) -> None:
    path = save(tmp_path, 10, state(1), FACTS)
    (path / INDEX).unlink() if content is None else (path / INDEX).write_text(content)
    with pytest.raises(CheckpointCorrupt, match=r"checkpoint\.json: cannot be read"):
        load(path)


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no digest": lambda index: index.pop("digest"),
    "another digest": lambda index: index.update(digest="0" * 64),
    "no files": lambda index: index.update(sha256={}),
    "one file less": lambda index: index["sha256"].pop(WEIGHTS),
    "another fact": lambda index: index.update(metrics={"val_loss": 0.25}),
    "another step": lambda index: index.update(step=30),
    "another schema": lambda index: index.update(schema=7),
    "another config": lambda index: index.update(config_digest="xyz"),
    "deep": lambda index: index.update(deep="DEEP"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_no_edit_of_the_index_switches_its_digest_off(tmp_path: Path, edit: str) -> None:
    save(tmp_path, 10, state(1), FACTS)
    path = save(tmp_path, 20, state(2), FACTS)
    index = json.loads((path / INDEX).read_text())
    EDITS[edit](index)
    text = json.dumps(index).replace('"DEEP"', "[" * 100_000 + "]" * 100_000)
    (path / INDEX).write_text(text)
    with pytest.warns(UserWarning, match=r"step-00000020 is corrupt .*checkpoint\.json: cannot be read"):
        found = load_latest(tmp_path, config_digest="abc")
    assert found is not None
    assert found[1]["step"] == 10


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
def test_an_index_that_leaves_a_file_out_is_refused_even_with_its_digest(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 10, state(1), FACTS)
    digests = read_index(path)["sha256"]
    rewrite(path, sha256={other: digest for other, digest in digests.items() if other != name})
    with pytest.raises(CheckpointCorrupt, match=f"{name}: digest [0-9a-f]{{12}}, recorded none"):
        load(path)


@pytest.mark.parametrize("name", [WEIGHTS, STATE, INDEX])
def test_a_bad_sector_under_the_newest_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for step in (10, 20):
        save(tmp_path, step, state(step), FACTS)
    real = Path.open

    def unreadable(path: Path, *given: Any, **more: Any) -> Any:
        if path == tmp_path / "step-00000020" / name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, *given, **more)

    monkeypatch.setattr(Path, "open", unreadable)
    with pytest.warns(UserWarning, match=r"step-00000020 is corrupt .*Input/output error.*; going back to"):
        found = load_latest(tmp_path)
    assert found is not None
    assert found[1]["step"] == 10


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("No such file or directory: model.safetensors"),
        RuntimeError("unable to open file <model.safetensors> in read-only mode: Input/output error (5)"),
    ],
    ids=["safetensors", "torch"],
)
def test_weights_that_cannot_be_opened_are_a_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_path: Path) -> Any:
        raise error

    save(tmp_path, 10, state(10), FACTS)
    monkeypatch.setattr("safetensors.torch.load_file", fail)
    with pytest.raises(CheckpointCorrupt, match="cannot be read") as caught:
        load(tmp_path / "step-00000010")
    assert storage_problem(caught.value) == "input/output error"


def test_what_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path, 10, state(1), FACTS)
    others = ["step-abc", "step-00000099.bak", "step-7", "notes"]
    for name in others:
        (tmp_path / name).mkdir()
    os.symlink("../elsewhere", tmp_path / "best")
    assert linked(tmp_path, "best") is None
    prune(tmp_path, set())
    found = no_warning(tmp_path)
    assert found is not None
    assert found[1]["step"] == 10
    assert {p.name for p in tmp_path.iterdir()} == {*others, "step-00000010", "latest", "best"}


def test_another_config_and_another_schema_are_mismatches(tmp_path: Path) -> None:
    path = save(tmp_path, 10, state(1), FACTS)
    with pytest.raises(CheckpointMismatch, match="made with config abc, but the member's config is xyz"):
        load(path, config_digest="xyz")
    # Not passed over: an older one would be of that config as well.
    with pytest.raises(CheckpointMismatch):
        load_latest(tmp_path, config_digest="xyz")
    rewrite(path, schema=2)
    with pytest.raises(CheckpointMismatch, match="schema 2; this version reads 1"):
        load(path)


@pytest.mark.parametrize("name", [WEIGHTS, STATE, INDEX])
def test_a_corrupt_newest_falls_back_with_a_warning_that_names_both(tmp_path: Path, name: str) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, state(step), FACTS)
    (tmp_path / "step-00000030" / name).write_bytes(b"torn")
    with pytest.warns(UserWarning, match=r"step-00000030 is corrupt .*; going back to \S+step-00000020$") as caught:
        found = load_latest(tmp_path)
    assert len(caught) == 1
    assert found is not None
    assert found[0]["step"] == 20
    # Set aside, so that the step can be saved again.
    assert [p.name for p in steps(tmp_path)] == ["step-00000010", "step-00000020"]
    (aside,) = tmp_path.glob("corrupt-*")
    assert aside.name.startswith("corrupt-step-00000030-")
    save(tmp_path, 30, state(31), FACTS)
    again = no_warning(tmp_path)
    assert again is not None
    assert again[0]["step"] == 31


def test_where_all_are_corrupt_it_begins_anew(tmp_path: Path) -> None:
    for step in (10, 20):
        damage(save(tmp_path, step, state(step), FACTS) / WEIGHTS)
    with pytest.warns(UserWarning, match="is corrupt") as caught:
        assert load_latest(tmp_path) is None
    said = [str(w.message) for w in caught]
    assert len(said) == 2
    assert "going back to the beginning: none is before it" in said[1]
    assert steps(tmp_path) == []


def test_what_is_kept(tmp_path: Path) -> None:
    for step in range(10, 110, 10):
        path = save(tmp_path, step, state(step), FACTS)
        if step == 40:
            point(tmp_path, "best", path)
        prune(tmp_path, {20, 60, 500})
    assert [int(p.name.removeprefix("step-")) for p in steps(tmp_path)] == [20, 40, 60, 90, 100]
    assert linked(tmp_path, "best") == tmp_path / "step-00000040"
    assert linked(tmp_path, "latest") == tmp_path / "step-00000100"


def test_a_link_moves_in_one_step_and_may_dangle(tmp_path: Path) -> None:
    one, two = save(tmp_path, 10, state(1), FACTS), save(tmp_path, 20, state(2), FACTS)
    point(tmp_path, "best", one)
    point(tmp_path, "best", two)
    assert linked(tmp_path, "best") == two
    # Relative, so that a run folder can be moved.
    assert os.readlink(tmp_path / "best") == "step-00000020"
    two.rename(tmp_path / "elsewhere")
    assert linked(tmp_path, "best") is None
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("where", ["rename", "fsync"])
def test_a_full_disk_leaves_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    save(tmp_path, 10, state(1), FACTS)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, where, full)
        with pytest.raises(CheckpointError, match=r"step-00000020: cannot be written .*No space left") as caught:
            save(tmp_path, 20, state(2), FACTS)
    assert storage_problem(caught.value) == "the disk is full"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000010"]
    found = no_warning(tmp_path)
    assert found is not None
    assert found[0]["step"] == 1
    save(tmp_path, 20, state(2), FACTS)
    assert linked(tmp_path, "latest") == tmp_path / "step-00000020"


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from trainables.worker import checkpoint
from tune_rh.errors import storage_problem
big, rest = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    checkpoint.save(Path(sys.argv[1]), 20, {"model": {"w": torch.zeros(big)}, "rest": torch.zeros(rest)}, {})
except Exception as error:
    print(type(error).__name__, storage_problem(error))
"""


@pytest.mark.parametrize(("big", "rest"), [(10_000, 1), (1, 10_000)], ids=["weights", "state"])
def test_a_write_that_the_kernel_refuses_half_way(tmp_path: Path, big: int, rest: int) -> None:
    save(tmp_path, 10, state(1), FACTS)
    words = [sys.executable, "-c", LIMITED, str(tmp_path), str(big), str(rest)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "CheckpointError file too large\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000010"]


def test_a_checkpoint_holds_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the state is read with ``weights_only=True``: an object of ours is refused when it is loaded."""
    monkeypatch.setattr("trainables.worker.checkpoint.unsavable", lambda state: ())
    path = save(tmp_path, 10, {"model": {}, "odd": Path("x")}, FACTS)
    with pytest.raises(Exception, match="Weights only load failed"):
        load(path)
