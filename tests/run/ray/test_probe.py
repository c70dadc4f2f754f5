"""What is found of the nodes of a cluster before a job runs on one: each fault by itself, none where all is well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.worlds.records import make
from tune_rh.plan.file import load_frozen
from tune_rh.preflight.environment import MIB
from tune_rh.run.ray.admit.probe import Probe, View, findings
from tune_rh.run.ray.nodes import survey

FOLDER = Path("/common/runs/r")
HERE = View(
    versions={"python": "3.11.7", "torch": "2.13.0", "ray": "2.60.0", "tune-rh": "0.1.0"},
    sees="token",
    sources={"mine.task": "aa", "mine.model": "bb"},
    digest="cc",
    free={"/common/runs/r": 10_000 * MIB, "/tmp": 10_000 * MIB},
    arrives="token",
)


def found(**seen: object) -> list[str]:
    """What is found of a node that differs from the driver's host in ``seen``."""
    node = replace(HERE, **seen)  # type: ignore[arg-type]
    return [str(finding) for finding in findings("node h1", node, HERE, token="token", folder=FOLDER)]


def test_of_a_node_like_this_host_nothing_is_found() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        ({"storage": "No such file or directory"}, "P81 node h1: cannot use /common/runs/r: all nodes need the folder"),
        ({"sees": "of another run"}, "P81 node h1: cannot use /common/runs/r: all nodes need the folder"),
        ({"arrives": ""}, "P81 node h1: what it writes does not arrive in /common/runs/r"),
        ({"versions": {**HERE.versions, "torch": "2.11.0"}}, "P82 node h1: has torch 2.11.0; this host has 2.13.0"),
        ({"versions": {**HERE.versions, "tune-rh": ""}}, "P82 node h1: has tune-rh none; this host has 0.1.0"),
        (
            {"code": "ModuleNotFoundError: No module named 'x'"},
            "P83 node h1: cannot import what a job needs: ModuleNot",
        ),
        ({"sources": {"mine.task": "aa", "mine.model": "b2"}}, "P83 node h1: has another source of mine.model"),
        ({"data": "DataMissing: it is not in /d"}, "P84 node h1: has not the data set: DataMissing: it is not in /d"),
        ({"digest": "c2"}, "P84 node h1: has not the data set: its digest is c2, here it is cc"),
        ({"free": {"/tmp": 3 * MIB}}, "P85 node h1: 3 MiB (0.00 GiB) are free in /tmp; allowed is 256 MiB (0.25 GiB)"),
    ],
)
def test_each_fault_is_one_finding(seen: dict[str, object], line: str) -> None:
    (only,) = found(**seen)
    assert only.startswith(line)


def test_everything_wrong_is_said_at_once() -> None:
    lines = found(storage="Permission denied", versions={}, code="ImportError: x", free={"/tmp": 0})
    assert [line[:3] for line in lines] == ["P81", "P82", "P82", "P82", "P82", "P83", "P85"]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(300, func_only=True)
def test_a_node_looks_for_itself_and_leaves_nothing_and_one_that_went_away_is_no_fault(tmp_path: Path) -> None:
    paths = make(tmp_path / "run")
    plan = load_frozen(paths.plan)
    here = survey()
    gone = [replace(node, id="e" * len(node.id), name="gone") for node in here]
    assert Probe(plan, paths.root, tmp_path)([*here, *gone]) == []
    assert [path.name for path in paths.root.iterdir() if path.name.startswith(".probe")] == []
