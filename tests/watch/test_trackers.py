"""MLflow against a server of its own, and Weights & Biases offline: what they hold of a search that was cut short."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.watch.test_watchers import SMALLER, follow
from tests.worlds.records import events, make
from tune_rh.record.events import Evaluated, Event, MemberId, Tested
from tune_rh.record.journal import RunPaths
from tune_rh.record.ranking import best_member, ranking
from tune_rh.run import runs
from tune_rh.watch import follower

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.watch.test_watchers import follow
from tune_rh.record.events import Evaluated
from tune_rh.record.journal import RunPaths

num = 0
paths = RunPaths(Path(sys.argv[1]))

def kill(event):
    global num
    num += isinstance(event, Evaluated)
    if num == int(sys.argv[2]):
        told = paths.watch / f"{sys.argv[3]}.told"
        while not told.exists() or int(told.read_text()) < 12:  # it is in the middle of telling
            pass
        os.kill(os.getpid(), signal.SIGKILL)

follow(paths, on_event=kill)
"""


def cut_short(paths: RunPaths, tracker: str, env: dict[str, str]) -> None:
    """A driver that dies in the middle of the search, told to its tracker so far."""
    command = [sys.executable, "-c", KILLED, str(paths.root), "8", tracker]
    ended = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def curves(paths: RunPaths, metric: str) -> dict[str, list[tuple[int, float]]]:
    """Member -> points of a metric, as the journal has them."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(paths):
        if isinstance(event, Evaluated) and metric in event.metrics:
            point = (event.step, event.metrics[metric])
            if point not in found.setdefault(str(event.member), []):  # steps that were trained twice
                found[str(event.member)].append(point)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(find_spec("flask") is None or find_spec("mlflow") is None, reason="needs the package mlflow")
def test_mlflow_has_each_report_once_after_a_kill(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    paths = make(tmp_path / "run", **SMALLER, watch=["mlflow"])
    cut_short(paths, "mlflow", {"MLFLOW_TRACKING_URI": server})
    told = paths.watch / "mlflow.told"
    told.write_text(f"{int(told.read_text()) - 4:019d}\n")  # as if it had died before it could note them
    audience = follow(paths)
    assert audience.warnings == []

    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("scripted")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=500)
    by_member = {run.data.tags["tune_rh.member"]: run for run in found}
    assert len(found) == len(by_member)  # none is there twice
    history = runs.replay(paths)[1]
    expected = curves(paths, "val_loss")
    for name, points in expected.items():
        run = by_member[name]
        logged = client.get_metric_history(run.info.run_id, "val_loss")
        assert sorted((metric.step, metric.value) for metric in logged) == points
        member = history.member(MemberId.parse(name))
        status = "FAILED" if member.lost else "FINISHED"
        assert run.info.status == status
        assert run.data.tags["mlflow.parentRunId"] == by_member["search"].info.run_id
        assert run.data.tags["seed"] == str(member.id.seed)
        assert run.data.tags["stage"] == str(member.stage + 1)
        assert run.data.params["floor"] == str(history.candidates[member.id.candidate].added.config["floor"])
        assert ("test_loss" in run.data.metrics) == (member.tested is not None)
    best = best_member(history, ranking(history)[0].candidate)
    search = by_member["search"]
    assert search.info.status == "FINISHED"
    assert search.data.tags["best"] == str(best)
    assert {file.path for file in client.list_artifacts(search.info.run_id, "best")} == {
        "best/config.json",
        "best/model.safetensors",
    }
    # What its page asks for: the runs below the search, over REST.
    with urllib.request.urlopen(server, timeout=30) as page:
        assert b"<title>MLflow</title>" in page.read()


@pytest.mark.skipif(find_spec("mlflow") is None, reason="needs the package mlflow")
def test_a_server_that_is_away_is_said_once_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(follower, "_CATCH_UP_S", 0.5)
    paths = make(tmp_path / "run", **SMALLER, watch=["mlflow"])
    audience = follow(paths)
    assert runs.replay(paths)[1].ended == "finished"
    assert all(line.startswith("warning: mlflow: ") for line in audience.warnings)
    assert len(audience.warnings) in (1, 2)  # that it cannot be written, and that it is behind at the end


def wandb_log(file: Path) -> Iterator[bytes]:
    """The records in a file of a run that was offline: LevelDB's log format, after seven bytes of its own."""
    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # the rest of a block that takes no header
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of a record, or its last piece
            yield whole
            whole = b""


def wandb_records(root: Path) -> dict[str, list[tuple[Any, dict[str, Any]]]]:
    """Run id -> what was logged, from the files of runs that were offline."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, list[tuple[Any, dict[str, Any]]]] = {}
    for file in sorted(root.glob("wandb/offline-run-*/run-*.wandb")):
        run_id = ""
        for content in wandb_log(file):
            record = wandb_internal_pb2.Record.FromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run_id = record.run.run_id
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                found.setdefault(run_id, []).append(("run", {"group": record.run.run_group, **config}))
            elif kind == "history":
                row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                found[run_id].append((record.history.step.num, row))
            elif kind == "artifact":
                found[run_id].append(("artifact", {"name": record.artifact.name}))
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("wandb") is None, reason="needs the package wandb")
def test_wandb_offline_has_each_report_once_after_a_kill(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALLER, watch=["wandb"])
    cut_short(paths, "wandb", {})
    assert follow(paths).warnings == []
    found = wandb_records(paths.root)
    for name, points in curves(paths, "val_loss").items():
        (logged,) = [rows for run_id, rows in found.items() if run_id.endswith(f"-{name}")]
        rows = [(step, row["val_loss"]) for step, row in logged if "val_loss" in row]
        assert rows == points
        facts = [row for what, row in logged if what == "run"]
        assert all(row["group"] == "scripted" and str(row["seed"]) == name.partition("-s")[2] for row in facts)
    kinds = Counter(what for rows in found.values() for what, _ in rows if what == "artifact")
    assert kinds["artifact"] >= 1


def test_what_is_told_of_a_member_is_in_words(tmp_path: Path) -> None:
    from tune_rh.watch.trackers import facts

    heard: list[tuple[Event, dict[str, str]]] = []

    def keep(event: Event, history: Any) -> None:
        if isinstance(event, Evaluated | Tested):
            heard.append((event, facts.tags(history, event.member)))

    paths = make(tmp_path / "run", **SMALLER)
    follow(paths, keep)
    control = next(tags for event, tags in heard if event.member == MemberId("c0000", 7))
    assert control == {
        "run": "scripted", "candidate": "c0000", "seed": "7", "stage": "1", "origin": "control",
        "label": "control: control",
    }  # fmt: skip
    assert facts.flat({"a": {"b": 1, "c": {"d": 2}}, "e": {}, "f": [3]}) == {"a.b": 1, "a.c.d": 2, "e": {}, "f": [3]}
    assert facts.identity(paths.root) == facts.identity(paths.root)
    other = make(tmp_path / "other" / "run", **SMALLER)
    follow(other)
    assert facts.identity(other.root) != facts.identity(paths.root)
