"""Gauges of a session hold the journal's own figures; Prometheus, told by our file, reads them as they are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.records import SMALL, make, of, open_search
from tune_rh.cli.main import main
from tune_rh.plan.file import load_frozen
from tune_rh.record.events import Evaluated, Promoted
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.ray import gauges
from tune_rh.run.ray.gauges import Gauges
from tune_rh.watch import metrics
from tune_rh.watch.metrics import OF_MEMBER, OF_RUN, exported, write_config

Values = dict[tuple[str, ...], float]


def finished(paths: RunPaths) -> History:
    """A run to its end, with gauges."""
    run, session = open_search(paths)
    session.listeners.append(Gauges(session, paths))
    LocalRunner(run).run(session)
    session.close("finished")
    return session.history


def expected(paths: RunPaths, history: History) -> Values:
    """What the journal says: by name, and by member or stage where there is one."""
    passed = [event.gate + 1 for event in of(paths, Promoted)]
    last = {str(event.member): event for event in of(paths, Evaluated)}
    members = [member for candidate in history.candidates.values() for member in candidate.members.values()]
    return {
        ("steps",): history.steps_spent,
        ("slots",): 1,
        ("running",): 0,
        ("waiting",): 0,
        ("parked",): sum(member.status == "idle" for member in members),
        ("retries",): len(history.losses.all),
        ("lost_nodes",): 0,
        **{("promoted", str(stage)): passed.count(stage) for stage in set(passed)},
        **{("member_step", member): event.step for member, event in last.items()},
        **{("member_objective", member): event.metrics["val_loss"] for member, event in last.items()},
        **{("member_steps_per_s", member): 0.0 for member in last},
    }


def test_what_is_set_last_is_what_the_journal_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: Values = {}

    class Noted:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            self.name, self.keys, self.default = name.removeprefix("tune_rh_"), tag_keys, dict[str, str]()

        def set_default_tags(self, tags: dict[str, str]) -> None:
            self.default = tags

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert {*tags, *self.default} == set(self.keys)
            values[(self.name, *tags.values())] = value

    monkeypatch.setattr(gauges, "Gauge", Noted)
    paths = make(tmp_path / "run", **{**SMALL, "presets": ["good"]})
    history = finished(paths)
    want = expected(paths, history)
    assert want[("parked",)] > 0
    assert {key: value for key, value in values.items() if key[0] != "member_stage"} == want


def test_the_files_name_every_gauge_and_hold_for_prometheus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "OWN_CLUSTERS", tmp_path / "none")  # files there come and go with other tests
    assert main(["metrics-config", str(tmp_path / "m"), "--ray-dir", str(tmp_path / "its ray")]) == 0
    assert f"--config.file={tmp_path / 'm' / 'prometheus.yml'}" in capsys.readouterr().out
    dashboard = json.loads((tmp_path / "m" / "tune-rh-dashboard.json").read_text())
    asked = [panel["targets"][0]["expr"].partition("{")[0] for panel in dashboard["panels"]]
    assert asked == [exported(name) for name in (*OF_RUN, *OF_MEMBER)]
    assert (
        f'- "{tmp_path / "its ray"}/prom_metrics_service_discovery.json"' in (tmp_path / "m/prometheus.yml").read_text()
    )
    assert main(["metrics-config", "/dev/null/m"]) == 2
    if tool := shutil.which("promtool"):
        subprocess.run([tool, "check", "config", str(tmp_path / "m" / "prometheus.yml")], check=True)


@contextmanager
def prometheus(folder: Path) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """A Prometheus on loopback with the file that is written for it; takes queries."""
    config, _ = write_config(folder, Path("/tmp/ray"))
    port = 20000 + os.getpid() % 20000
    words = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'db'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(words, stderr=log) as process:

        def query(text: str) -> list[dict[str, Any]]:
            url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(text)}"
            try:
                with urllib.request.urlopen(url) as answer:
                    return list(json.load(answer)["data"]["result"])
            except OSError:  # it has not started yet
                return []

        try:
            yield query
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(300, func_only=True)
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus on the path")
def test_prometheus_reads_what_the_journal_says(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **{**SMALL, "name": f"of-{os.getpid()}", "presets": ["good"]})
    with prometheus(tmp_path) as query:
        want = expected(paths, finished(paths))
        began, values = time.monotonic(), Values()
        while values != want and time.monotonic() < began + 60:
            time.sleep(0.5)
            values = {
                (found["metric"]["__name__"].removeprefix(exported("")), *of_one): float(found["value"][1])
                for found in query(f'{{__name__=~"{exported("")}.*", run="{load_frozen(paths.plan).name}"}}')
                if "member_stage" not in found["metric"]["__name__"]
                for of_one in [[found["metric"][tag] for tag in ("member", "stage") if tag in found["metric"]]]
            }
        assert values == pytest.approx(want)
