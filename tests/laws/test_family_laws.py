"""The laws of a family, over everything that is registered: a new family gets these by being listed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainables.registry import FAMILIES
from tune_rh.testing import FamilyConformance


class Registered(FamilyConformance):
    min_configs = 101

    @pytest.fixture(scope="class")
    @classmethod
    def data_dir(cls, data_dir: Path) -> Path:
        """That of all tests, where data sets are made once."""
        return data_dir


for _name in FAMILIES:
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (Registered,), {"family": _name, "__module__": __name__})


@pytest.mark.parametrize("name", FAMILIES)
def test_naming_a_family_loads_nothing_heavy(name: str) -> None:
    code = (
        f"import sys; from trainables.registry import get_family; get_family({name!r}); "
        "print([m for m in ('torch', 'numpy', 'pydantic', 'ray', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
