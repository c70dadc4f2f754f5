"""What several files need, made once a session: real spacings, and a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trainables.spacing_mdn import zeros
from trainables.spacing_mdn.data import SOURCE

if TYPE_CHECKING:
    from tune_rh.ray_cluster import Cluster

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


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One Ray cluster on loopback for all tests that need one."""
    from tune_rh.plan import Resources
    from tune_rh.ray_cluster import connect

    with connect(Resources(), owner=tmp_path_factory.getbasetemp()) as cluster:
        yield cluster
