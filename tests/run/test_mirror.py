"""A run whose folder is lost goes on from its mirror as if nothing had happened; a mirror that fails stops no run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from moto.server import ThreadedMotoServer

from tests.watch.test_follower import Audience
from tests.worlds.plans import fields
from tests.worlds.records import SMALL, NoMirror, decided, finish, make
from tune_rh.cli.main import main
from tune_rh.errors import PlanError, PreflightRefused, RunExists, RunMismatch, RunNotFound
from tune_rh.plan.file import resolve_plan
from tune_rh.record.events import Event
from tune_rh.record.journal import RunPaths
from tune_rh.run.execute import Place, Precautions, execute, launch
from tune_rh.run.fetch import find_or_fetch
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.runner import start_session
from tune_rh.run.runs import open_run
from tune_rh.watch import mirror
from tune_rh.watch.mirror import Mirror, Store, run_at

CHECKOUT = Path(__file__).parents[2]

SEARCH_AND_DIE = """
import os, signal, sys, time
import tune_rh
from tune_rh.watch.mirror import run_at

num = 0

def on_event(event, history):
    global num
    num += 1
    if num == 30:
        store = run_at(sys.argv[2], "scripted")
        while (found := store.manifest()) is None or not found.members:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

tune_rh.search(sys.argv[1], runs_dir=sys.argv[3], data_dir=sys.argv[3], runner="local", mirror=sys.argv[2],
               trial=False, on_event=on_event)
"""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """The search without a mirror."""
    paths = make(tmp_path_factory.mktemp("quiet") / "scripted", **SMALL)
    finish(paths)
    return paths


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a bucket of an S3 server on loopback."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    asked = urllib.request.Request(f"http://{host}:{port}/kept", method="PUT")
    urllib.request.urlopen(asked).close()
    yield "s3://kept"
    server.stop()


def test_a_driver_that_is_killed_and_its_folder_lost_goes_on_from_the_mirror(
    bucket: str, tmp_path: Path, quiet: RunPaths
) -> None:
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(fields(**SMALL)))
    address = f"{bucket}/of/mine"
    words = [sys.executable, "-c", SEARCH_AND_DIE, str(tmp_path / "plan.toml"), address, str(tmp_path / "runs")]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    shutil.rmtree(tmp_path / "runs")

    places = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path), "--runner", "local"]
    assert main(["resume", f"{address}/scripted", *places]) == 0
    paths = RunPaths(tmp_path / "runs" / "scripted")
    assert decided(paths) == decided(quiet)
    assert (paths.best / "model.safetensors").read_bytes() == exported(quiet, tmp_path)

    # The mirror was kept: the finished run comes out of it again, and gives the same export.
    shutil.rmtree(tmp_path / "runs")
    assert main(["resume", f"{address}/scripted", *places]) == 0
    assert decided(paths) == decided(quiet)
    assert (paths.best / "model.safetensors").read_bytes() == exported(quiet, tmp_path)


def exported(paths: RunPaths, folder: Path) -> bytes:
    out = folder / "exported"
    shutil.rmtree(out, ignore_errors=True)
    assert main(["export", paths.root.name, "--runs-dir", str(paths.root.parent), "--out", str(out)]) == 0
    return (out / "model.safetensors").read_bytes()


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No study, and no waiting for the disk: neither decides anything."""
    monkeypatch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


@pytest.mark.usefixtures("light")
def test_whenever_the_folder_is_lost_the_mirror_gives_the_same_end(tmp_path: Path, quiet: RunPaths) -> None:
    paths, kept = make(tmp_path / "runs" / "scripted", **SMALL), tmp_path / "kept"
    run = open_run(paths, paths.root.parent)
    session = start_session(run, runner="local", slots=1)
    copies: list[Path] = []

    def copy(_event: Event) -> None:
        """One more copy of the whole at the same place, by another `Mirror` each time."""
        store = run_at(f"file://{kept}", "scripted")
        Mirror(store, paths, session.history, pytest.fail).catch_up()
        copies.append(tmp_path / "copies" / f"{len(copies)}")
        shutil.copytree(kept, copies[-1])

    session.listeners.append(copy)
    LocalRunner(run).run(session)
    session.close("finished")
    assert len(copies) > 40
    for number, where in enumerate(copies[::3]):
        found, address = find_or_fetch(f"file://{where}/scripted", tmp_path / f"again-{number}", lambda _line: None)
        assert address == f"file://{where}"
        finish(found)
        assert decided(found) == decided(quiet), where


@pytest.mark.usefixtures("light")
def test_a_checkpoint_that_the_mirror_has_lost_is_trained_again(tmp_path: Path, quiet: RunPaths) -> None:
    kept, paths = f"file://{tmp_path}/kept", make(tmp_path / "scripted", **SMALL)
    audience = stopped_after(30, paths, kept)
    assert not audience.warnings
    newest = sorted((tmp_path / "kept").glob("scripted/members/c0000-s7/step-*"))[-1]
    shutil.rmtree(newest)
    said: list[str] = []
    found, _ = find_or_fetch(f"{kept}/scripted", tmp_path / "again", said.append)
    assert any("the checkpoint of c0000-s7 at step" in line for line in said)
    finish(found)
    assert decided(found) == decided(quiet)


def stopped_after(num: int, paths: RunPaths, kept: str) -> Audience:
    """A session on the run that is stopped cleanly after so many events; where it is mirrored, it is by then."""
    count = 0

    def stop(_event: Event) -> None:
        nonlocal count
        count += 1
        if count == num:
            signal.raise_signal(signal.SIGTERM)

    audience = Audience(stop)
    execute(paths, Place(paths.root.parent, "local", mirror=kept), audience, lambda *_: None)
    return audience


@pytest.mark.usefixtures("light")
def test_a_clean_stop_is_mirrored_whole(tmp_path: Path, quiet: RunPaths) -> None:
    kept, paths = f"file://{tmp_path}/kept", make(tmp_path / "scripted", **SMALL)
    stopped_after(25, paths, kept)
    found, _ = find_or_fetch(f"{kept}/scripted", tmp_path / "again", str)
    assert found.journal.read_bytes() == paths.journal.read_bytes()
    for latest in paths.members.glob("*/checkpoints/latest"):
        again = found.members / latest.relative_to(paths.members)
        assert again.readlink() == latest.readlink()
    finish(found)
    assert decided(found) == decided(quiet)


@pytest.mark.usefixtures("light")
def test_a_mirror_that_fails_is_said_once_a_cause_and_at_the_end(
    tmp_path: Path, quiet: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_FIRST_PAUSE_S", 0.01)

    def refuse(*_: object) -> None:
        raise OSError(5, "the link is down")

    monkeypatch.setattr(Store, "upload", refuse)
    paths, audience = make(tmp_path / "scripted", **SMALL), Audience()
    kept = f"file://{tmp_path}/kept"
    execute(paths, Place(tmp_path, "local", mirror=kept), audience, lambda *_: None)
    assert decided(paths) == decided(quiet)
    first, last = audience.warnings
    assert first.startswith(f"warning: mirror {kept}/scripted: cannot be written (OSError: [Errno 5] the link is down)")
    num = len(paths.journal.read_bytes().splitlines())
    assert last.startswith(f"warning: mirror {kept}/scripted: {num} events and checkpoints of ")

    # Once it can be written, a resume of the finished run brings it up to date.
    monkeypatch.undo()
    audience = Audience()
    execute(paths, Place(tmp_path, "local", mirror=kept), audience, lambda *_: None)
    assert not audience.warnings
    found, _ = find_or_fetch(f"{kept}/scripted", tmp_path / "again", str)
    assert found.journal.read_bytes() == paths.journal.read_bytes()


@pytest.mark.parametrize(
    "address", ["s3://", "gs://bucket", "/folder", "file://folder", "s3://me:secret@bucket", "s3://bucket?region=x"]
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(PlanError, match="is no address of a mirror: allowed are s3://bucket/prefix and file:///"):
        Place(tmp_path, "local", mirror=address)


def test_a_mirror_that_cannot_be_reached_is_refused_before_anything_is_written(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    for address, why in ((bucket, "connect"), (f"file://{tmp_path}/file/below", "irectory")):
        with pytest.raises(PreflightRefused, match=rf"--mirror {address}/scripted: cannot be used \(.*{why}"):
            begin(tmp_path, address)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    with pytest.raises(PreflightRefused, match=r"cannot be used \(.*bucket does not exist"):
        begin(tmp_path, "s3://another/prefix")
    assert not (tmp_path / "runs" / "scripted").exists()


def begin(folder: Path, address: str) -> None:
    place = Place(folder, "local", mirror=address)
    launch(resolve_plan(fields(**SMALL)), folder / "runs", place, Audience(), lambda *_: None, Precautions(trial=False))


def test_a_mirror_of_another_run_is_left_alone(tmp_path: Path) -> None:
    kept = f"file://{tmp_path}/kept"
    paths = make(tmp_path / "one" / "scripted", **SMALL)
    stopped_after(12, paths, kept)
    before = (tmp_path / "kept" / "scripted" / "mirror.json").read_bytes()
    with pytest.raises(PreflightRefused, match=f"{kept}/scripted holds a run already: go on with `tune-rh resume "):
        begin(tmp_path, kept)
    other = make(tmp_path / "two" / "scripted", **SMALL)
    with pytest.raises(RunMismatch, match="holds another run, or more of this one than"):
        stopped_after(3, other, kept)
    with pytest.raises(RunExists, match="go on with `tune-rh resume scripted --runs-dir"):
        find_or_fetch(f"{kept}/scripted", tmp_path / "one", pytest.fail)
    with pytest.raises(RunNotFound, match=f"{kept}/none: holds no mirror of a run"):
        find_or_fetch(f"{kept}/none", tmp_path / "new", str)
    assert (tmp_path / "kept" / "scripted" / "mirror.json").read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"members": {"../../outside": {"steps": [20], "best": 20}}},
        {"members": {"c0001-s7": {"steps": [-1], "best": None}}},
        {"sha256": "0" * 64},
        {"segments": [0, 5]},
        {"format": 2},
    ],
)
def test_a_mirror_that_was_changed_is_refused_and_leaves_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    kept = f"file://{tmp_path}/kept"
    stopped_after(12, make(tmp_path / "scripted", **SMALL), kept)
    manifest = tmp_path / "kept" / "scripted" / "mirror.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))
    with pytest.raises(RunMismatch, match=f"{kept}/scripted"):
        find_or_fetch(f"{kept}/scripted", tmp_path / "new", str)
    assert not list((tmp_path / "new").glob("*"))
