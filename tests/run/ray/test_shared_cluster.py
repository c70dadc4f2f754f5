"""Tests that share a Ray cluster do not take each other down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CONFTEST = "from tests.conftest import pytest_runtest_makereport, ray_cluster, shared_cluster\n"
# As Tune does: an actor in a placement group, here of all cores. The first test is cut short while the actor is there.
TESTS = """
import signal
import time

import pytest
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

pytestmark = [pytest.mark.timeout(func_only=True), pytest.mark.usefixtures("ray_cluster")]


class Actor:
    def ready(self):
        return True


def test_hangs():
    cores = ray.cluster_resources()["CPU"]
    group = placement_group([{"CPU": cores}], lifetime="detached")
    ray.get(group.ready())
    actor = ray.remote(num_cpus=cores, scheduling_strategy=PlacementGroupSchedulingStrategy(group))(Actor)
    ray.get(actor.options(name="left", lifetime="detached").remote().ready.remote())
    pytest.hangs = True
    signal.setitimer(signal.ITIMER_REAL, 0.1)  # the signal by which a time-out comes
    time.sleep(3600)


def test_goes_on():
    assert pytest.hangs
    cores = ray.cluster_resources()["CPU"]
    assert ray.get(ray.remote(num_cpus=cores)(lambda: "done").remote(), timeout=60) == "done"
"""


@pytest.mark.timeout(300)  # the start of two clusters is in it
def test_a_test_that_runs_into_its_limit_leaves_the_next_one_a_free_cluster(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_inner.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout=600", "--tb=line"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "Failed: Timeout" in done.stdout
