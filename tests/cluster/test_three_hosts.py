"""A search on three hosts is the search on one: every curve, every value on the test split, every exported weight."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.cluster.bed import Bed, wait_until
from tests.cluster.searches import outcome, repeated, words
from tune_rh.record.journal import RunPaths

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_three_hosts_train_what_one_trains(hosts: Bed, quiet: RunPaths) -> None:
    folder = hosts.common / "plain"
    log = folder.with_suffix(".log")
    driver = hosts.tune_rh(*words(folder, "--address", hosts.address), log=log)
    trained: defaultdict[str, set[str]] = defaultdict(set)

    def over() -> bool:
        for host in hosts.hosts:
            trained[host.name] |= set(host.workers().values())
        return driver.poll() is not None

    wait_until(over, 600.0, "the end of the search")
    assert driver.returncode == 0, log.read_text()
    paths = RunPaths(folder / "runs" / "run")
    assert outcome(paths) == outcome(quiet)
    assert repeated(paths) == []
    assert all(trained[host.name] for host in hosts.hosts)
