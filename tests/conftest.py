"""What several files need, made once for all processes that share the tests: data sets; and one Ray cluster."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, settings

from tests.worlds import wheel
from trainables.spacing_mdn.data import zeros
from trainables.spacing_mdn.data.source import SOURCE

if TYPE_CHECKING:
    from tune_rh.run.ray.cluster import Cluster

FAILED = pytest.StashKey[bool]()

# A machine that is busy with other things must not fail a property.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder`` against other processes of the same tests."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keys that tune-rh makes for its user lie in a folder of the tests."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of all data: TUNE_RH_DATA_DIR if it is set, so that sets made before are used, else a folder of this run."""
    given = os.environ.get("TUNE_RH_DATA_DIR")
    if given:
        return Path(given)
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "data"


@pytest.fixture(scope="session")
def first100k_dir(data_dir: Path) -> Path:
    """``data_dir`` with first100k in it."""
    with alone(data_dir):
        SOURCE.prepare("first100k", data_dir)
    return data_dir


@pytest.fixture(scope="session")
def zeros_100k(first100k_dir: Path) -> np.ndarray:
    """The first 100,000 ordinates."""
    return zeros.ordinates(100_000, first100k_dir / "spacing_mdn" / "zeros")


@pytest.fixture
def no_drawing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save figures empty, but in tests marked ``drawn``: drawing takes most of the time of a page."""

    def save(figure: object, file: IO[bytes] | Path, *, format: str = "png", **options: object) -> None:
        content = b'<svg width="1" height="1"></svg>' if format == "svg" else b""
        file.write_bytes(content) if isinstance(file, Path) else file.write(content)

    if "drawn" not in request.keywords:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a small search by the command line over the scripted family, to be copied by `copy_run`."""
    from tests.worlds.plans import fields
    from tune_rh.cli.main import main

    folder = tmp_path_factory.mktemp("finished")
    (folder / "plan.toml").write_text(tomli_w.dumps(fields(num_candidates=3)))
    places = ["--runs-dir", str(folder / "runs"), "--data-dir", str(folder / "data")]
    assert main(["search", str(folder / "plan.toml"), "--runner", "local", *places]) == 0
    return folder / "runs" / "scripted"


@pytest.fixture
def copy_run(finished_run: Path) -> Callable[[Path], Path]:
    """Copies `finished_run` below a folder of runs; returns the copy."""
    return lambda runs: shutil.copytree(finished_run, runs / finished_run.name, symlinks=True)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    return wheel.build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment apart from the checkout, in which the wheel is installed."""
    return wheel.install(built, tmp_path_factory.mktemp("fresh"))


class SharedCluster:
    """One Ray cluster for all tests that need one, until one of them fails: what that left in it goes with it."""

    def __init__(self, owner: Path) -> None:
        self._owner = owner
        self._open = ExitStack()
        self._cluster: Cluster | None = None

    def get(self) -> Cluster:
        """The cluster; a new one if there is none."""
        from tune_rh.plan.schema import Resources
        from tune_rh.run.ray.cluster import connect

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
    """A Ray cluster on loopback on which nothing runs, nor is still being ended."""
    cluster = shared_cluster.get()
    if held := _still_held():
        held_cores = f"a test before this one left cores of its cluster taken, so this one has a new one: {held}"
        warnings.warn(held_cores, stacklevel=1)
        shared_cluster.end()
        cluster = shared_cluster.get()
    yield cluster
    if request.node.stash.get(FAILED, True):
        shared_cluster.end()


def _still_held(seconds: float = 20.0) -> list[object]:
    """What holds cores after this time: Ray takes them back some time after an actor is gone, and not always."""
    import ray
    from ray.util import placement_group_table

    deadline = time.monotonic() + seconds
    while ray.available_resources().get("CPU", 0.0) < ray.cluster_resources()["CPU"]:
        if time.monotonic() > deadline:
            actors = [actor for actor in ray._private.state.actors().values() if actor["State"] != "DEAD"]
            groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
            return [*actors, *groups, ray.available_resources()]
        time.sleep(0.05)
    return []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on a test whether its call failed; one that was cut short has no note."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests on Ray first: they take longest, and no process should be left alone with them at the end."""
    items.sort(key=lambda item: "ray_cluster" not in getattr(item, "fixturenames", ()))
