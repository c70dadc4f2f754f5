"""A search as a Ray Job: submitted from a node that is not the head, stopped, and submitted again."""

from __future__ import annotations

import re
import sys

import pytest

from tests.cluster.bed import Bed, wait_until
from tests.cluster.searches import outcome, places, repeated, words
from tests.worlds.records import of
from tune_rh.record.events import SessionEnded
from tune_rh.record.journal import RunPaths

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_a_job_that_is_stopped_and_submitted_again_ends_as_one_that_was_not(hosts: Bed, quiet: RunPaths) -> None:
    folder, client = hosts.common / "job", hosts.hosts[1]
    log, paths = folder.with_suffix(".log"), RunPaths(folder / "runs" / "run")
    _, *plan = words(folder)
    submitted = hosts.tune_rh("submit", *plan, "--address", hosts.dashboard, log=log, host=client)
    wait_until(
        lambda: "step 20:" in log.read_text(encoding="utf-8") or submitted.poll() is not None,
        300.0,
        "a report in the log",
    )
    assert submitted.poll() is None, log.read_text(encoding="utf-8")
    (identity,) = re.findall(r"as (run-[0-9a-f]{8})\. ", log.read_text(encoding="utf-8"))
    ray = (sys.executable, "-m", "ray.scripts.scripts", "job")
    listed = client.run(*ray, "list", "--address", hosts.dashboard)
    assert re.search(r"metadata=\{[^}]*'job_name': 'run'", listed), listed
    client.run(*ray, "stop", identity, "--address", hosts.dashboard)
    assert submitted.wait(timeout=120) == 130, log.read_text(encoding="utf-8")
    assert of(paths, SessionEnded)[-1].reason == "interrupted"
    more = ("--trust", "tests.cluster.family", "--address", hosts.dashboard)  # the run is the head's user's
    again = hosts.tune_rh("submit", "run", *places(folder), *more, log=log, host=client)
    assert again.wait(timeout=600) == 0, log.read_text(encoding="utf-8")
    assert outcome(paths) == outcome(quiet)
    assert repeated(paths) == []
