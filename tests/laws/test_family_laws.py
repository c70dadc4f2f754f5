"""The laws of a family, over everything that is registered: a new family gets these by being listed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainables.registry import FAMILIES
from tune_rh.testing import FamilyConformance

_NO_SLOTS: dict[str, Any] = {
    "layout": "none",
    "n_slots": 0,
    "slot_id_mode": "fixed",
    "eval_slot_id_mode": "fixed",
    "slot_dropout": 0.0,
    "aux_mode": "off",
}
_UNBALANCED: dict[str, Any] = {
    "balance": "none",
    "aux_loss_coef_start": 0.0,
    "aux_loss_coef_end": 0.0,
    "aux_decay_end_frac": 0.0,
}
_DENSE: dict[str, Any] = {**_UNBALANCED, "ffn": "dense", "num_experts": 0, "top_k": 0, "z_loss_coef": 0.0}
LAYOUTS: dict[str, dict[str, dict[str, Any]]] = {
    "spacing_mdn": {
        "data alone": _NO_SLOTS,
        "data alone, features": {**_NO_SLOTS, "ar_features": 5, "height_input": True},
        "slots before": {"layout": "prefix", "aux_mode": "off"},
        "slots after, cuts": {"query_cuts": 3, "ar_features": 5, "aux_mode": "diagonal", "ortho_weight": 0.1},
        "slots after, own units": {"block_norm": True, "readout": "weights", "head_bias": True},
    },
    "shared_moe": {
        "a block each": {"blocks": "indexed"},
        "one expert": {"top_k": 1, "gate": "prob"},
        "dense": _DENSE,
    },
    "equilibrium": {
        "mixed states": {"anderson": 3},
        "energy": {"mode": "energy", "tied": True},
        "contraction": {"mode": "mono"},
        "contraction of pairs": {"mode": "nemon"},
    },
    "nsa": {"dense": {"attn": "dense"}, "gathered": {"selection": "gather"}, "in union": {"selection": "union"}},
}
EVEN: dict[str, dict[str, Any]] = {
    "spacing_mdn": {"dropout": 0.0},
    # The load in the auxiliary loss is a micro-batch's: N products of two means are not the product of the means.
    "shared_moe": _UNBALANCED,
    # A micro-batch has directions of its own for the Jacobian's penalty, and takes the nudged step that suits it best.
    "equilibrium": {"jr_mode": "off", "select": False},
}


class Registered(FamilyConformance):
    min_configs = 101

    @pytest.fixture(scope="class")
    @classmethod
    def data_dir(cls, data_dir: Path) -> Path:
        """That of all tests, where data sets are made once."""
        return data_dir


for _name in FAMILIES:
    _own = {"family": _name, "layouts": LAYOUTS.get(_name, {}), "even": EVEN.get(_name, {}), "__module__": __name__}
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (Registered,), _own)


class TestSpacingMdnOfFeatures(Registered):
    family = "spacing_mdn"
    preset = "tiny-mlp"
    even = EVEN["spacing_mdn"]
    layouts = {
        "fitted lines ahead": {"ar_bank": 0, "prime_grid": True},
        "height inferred": {
            "ar_bank": 0,
            "prime_window": 1200,
            "height_source": "inferred",
            "height_every": 1024,
        },
        "exact lines": {"ar_bank": 0, "prime_phases": "exact"},
        "a bank, read everywhere": {"layout": "none", "prime_lines": 0},
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_naming_a_family_loads_nothing_heavy(name: str) -> None:
    code = (
        f"import sys; from trainables.registry import get_family; get_family({name!r}); "
        "print([m for m in ('torch', 'numpy', 'pydantic', 'ray', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
