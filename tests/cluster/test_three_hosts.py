"""A search on three hosts is the search on one: every curve, every value on the test split, every exported weight."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.cluster.bed import Bed, wait_until
from tests.cluster.searches import outcome, repeated, words
from tune_rh.errors import PreflightRefused
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


def test_what_the_hosts_do_not_share_is_said_of_each_before_anything_is_left(hosts: Bed) -> None:
    folder = hosts.common / "apart"
    plan, *_ = words(folder)[1:2]
    hosts.head.run("sh", "-c", "mkdir -p /mnt/data && echo more > /mnt/data/changed")
    log = folder.with_suffix(".log")
    places = ["--runs-dir", "/mnt/runs", "--data-dir", "/mnt/data"]
    driver = hosts.tune_rh("search", plan, "--no-trial", *places, "--address", hosts.address, log=log)
    assert driver.wait(120) == PreflightRefused.exit_code, log.read_text()
    said = log.read_text()
    for host in hosts.hosts[1:]:
        title = f"node {host.name} ({host.address})"
        assert f"P81 {title}: cannot use /mnt/runs/run: all nodes need the folder of the run" in said
        assert f"P84 {title}: has not the data set: its digest is " in said
    assert f"node {hosts.head.name} " not in said
    assert "Traceback" not in said
    assert hosts.head.run("ls", "-A", "/mnt/runs") == ""


def test_a_data_set_of_the_head_alone_goes_to_the_other_hosts(hosts: Bed, quiet: RunPaths) -> None:
    folder = hosts.common / "shipped"
    plan, *_ = words(folder)[1:2]
    log = folder.with_suffix(".log")
    places = ["--runs-dir", str(folder / "runs"), "--data-dir", "/mnt/tables", "--address", hosts.address]
    tabled = ["--set", 'family="tests.cluster.family:TABLED"']
    driver = hosts.tune_rh("search", plan, "--no-trial", *tabled, *places, "--ship-data", log=log)
    assert driver.wait(600) == 0, log.read_text()
    assert outcome(RunPaths(folder / "runs" / "run")) == outcome(quiet)
    others = ", ".join(host.name for host in hosts.hosts[1:])
    assert f"Data set 'none' goes to {others}" in log.read_text()
    tables = {host.run("cat", "/mnt/tables/table/none.txt") for host in hosts.hosts}
    assert len(tables) == 1
    assert len(tables.pop()) == 32
