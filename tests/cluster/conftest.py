from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.bed import Bed, bed, unavailable
from tests.cluster.family import PACE
from tests.cluster.searches import search_quietly
from tune_rh.record.journal import RunPaths


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """The search as it ends where nothing happens to it."""
    return search_quietly(tmp_path_factory.mktemp("quiet"))


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Three hosts with a Ray cluster on them; skips where there can be none."""
    if reason := unavailable():
        pytest.skip(reason)
    with bed(tmp_path_factory.mktemp("common"), {PACE: "0.02"}) as made:
        yield made
