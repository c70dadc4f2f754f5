"""What several files need, made once a session: real spacings; and a Ray cluster that failed tests leave clean."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trainables.spacing_mdn import zeros
from trainables.spacing_mdn.data import SOURCE

if TYPE_CHECKING:
    from tune_rh.ray_cluster import Cluster

FAILED = pytest.StashKey[bool]()

# Ray starts its workers at nice 15, and two busy cores then starve them for minutes.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of all data: TUNE_RH_DATA_DIR if it is set, so that sets made before are used, else a folder of this run."""
    given = os.environ.get("TUNE_RH_DATA_DIR")
    return Path(given) if given else tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def first100k_dir(data_dir: Path) -> Path:
    """``data_dir`` with first100k in it."""
    SOURCE.prepare("first100k", data_dir)
    return data_dir


@pytest.fixture(scope="session")
def zeros_100k(first100k_dir: Path) -> np.ndarray:
    """The first 100,000 ordinates."""
    return zeros.ordinates(100_000, first100k_dir / "spacing_mdn" / "zeros")


class SharedCluster:
    """One Ray cluster for all tests that need one, until one of them fails: what that left in it goes with it."""

    def __init__(self, owner: Path) -> None:
        self._owner = owner
        self._open = ExitStack()
        self._cluster: Cluster | None = None

    def get(self) -> Cluster:
        """The cluster; a new one if there is none."""
        from tune_rh.plan import Resources
        from tune_rh.ray_cluster import connect

        if self._cluster is None:
            self._cluster = self._open.enter_context(connect(Resources(), owner=self._owner))
        return self._cluster

    def end(self) -> None:
        """End it, with all actors and placement groups."""
        self._cluster = None
        self._open.close()


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedCluster]:
    """The shared cluster, which starts with the first test that asks for it."""
    shared = SharedCluster(tmp_path_factory.getbasetemp())
    yield shared
    shared.end()


@pytest.fixture
def ray_cluster(request: pytest.FixtureRequest, shared_cluster: SharedCluster) -> Iterator[Cluster]:
    """A Ray cluster on loopback on which nothing runs."""
    yield shared_cluster.get()
    if request.node.stash.get(FAILED, True):
        shared_cluster.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on a test whether its call failed; one that was cut short has no note."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
