"""The config refuses what makes no sense, and says which field, which value, and what is allowed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from trainables.registry import build_config, get_family
from trainables.spacing_mdn.config import CLASSES, SpacingConfig, knowledge, known

FAMILY = get_family("spacing_mdn")
INFERRED = {"prime_lines": 9, "prime_window": 300, "height_source": "inferred"}
POSTFIX = {"layout": "postfix", "n_slots": 4}


@pytest.mark.parametrize("preset", sorted(FAMILY.presets))
def test_every_preset_builds(preset: str) -> None:
    config = build_config(FAMILY, preset=preset)
    assert SpacingConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("fields", "name", "value", "allowed"),
    [
        ({"n_slots": 4}, "n_slots", "4", "0 with layout = 'none'"),
        ({"layout": "prefix"}, "n_slots", "0", "at least 1"),
        ({"query_cuts": 2}, "query_cuts", "2", "1 unless layout = 'postfix'"),
        ({**POSTFIX, "query_cuts": 8, "context": 8, "eval_tail": 8}, "query_cuts", "8", "at most half of context = 8"),
        ({"block_norm": True}, "block_norm", "True", "False unless layout = 'postfix'"),
        ({**POSTFIX, "block_norm": True, "query_cuts": 2}, "block_norm", "True", "query_cuts = 2"),
        ({"slot_dropout": 0.1}, "slot_dropout", "0.1", "0.0 with layout = 'none'"),
        ({"slot_id_mode": "off"}, "slot_id_mode", "'off'", "'fixed' with layout = 'none'"),
        ({**POSTFIX, "perm_warmup_steps": 5}, "perm_warmup_steps", "5", "0 unless slot_id_mode"),
        ({"layout": "prefix", "n_slots": 2, "aux_mode": "mean"}, "aux_mode", "'mean'", "'off' unless layout"),
        ({"readout": "weights"}, "readout", "'weights'", "'states' unless layout = 'postfix'"),
        ({"ortho_weight": 0.1}, "ortho_weight", "0.1", "0 unless layout"),
        ({**POSTFIX, "aux_mode": "mean", "context": 16, "eval_tail": 8}, "context", "16", "at least 32"),
        ({"aux_ramp_first_steps": 4000}, "aux_ramp_first_steps", "4000", "at most aux_ramp_steps = 3000"),
        ({"width": 30}, "width", "30", "a multiple of n_heads = 8"),
        ({"batch_size": 10, "accumulation": 4}, "accumulation", "4", "a divisor of batch_size = 10"),
        ({"warmup": 20_000}, "warmup", "20000", "at most schedule_steps = 10000"),
        ({"context": 32}, "eval_tail", "64", "at most context = 32"),
        ({"prime_lines": 1}, "prime_lines", "1", "at least 2, the first prime"),
        ({"prime_grid": True}, "prime_grid", "True", "False with prime_lines = 0"),
        ({"prime_phases": "exact"}, "prime_phases", "'exact'", "'fitted' with prime_lines = 0"),
        ({"prime_lines": 9, "prime_window": 64, "refit_every": 20}, "prime_window", "64", "at least 72"),
        ({"height_source": "inferred"}, "height_source", "'inferred'", "'given' with prime_lines = 0"),
        ({**INFERRED, "prime_phases": "exact"}, "prime_phases", "'exact'", "'fitted' with height_source = 'inferred'"),
        ({**INFERRED, "height_every": 100}, "height_every", "100", "a multiple of refit_every = 16"),
        ({**INFERRED, "prime_window": 254}, "prime_window", "254", "at least 255 with height_source = 'inferred'"),
        ({**INFERRED, "height_input": True}, "height_input", "True", "False with height_source = 'inferred'"),
        ({"ar_bank": 256, "refit_every": 200}, "refit_every", "200", "at most 127 with ar_bank = 256"),
        ({"prime_lines": 9, "data": "gue"}, "prime_lines", "9", "0 with data = 'gue'"),
        ({"ar_bank": 256, "ar_features": 4}, "ar_features", "4", "0 with ar_bank or prime_lines"),
        ({**POSTFIX, "ar_bank": 256, "block_norm": True}, "block_norm", "True", "False with ar_bank"),
        ({"layout": "mlp", "n_slots": 2}, "n_slots", "2", "0 with layout = 'mlp'"),
        ({"layout": "mlp", "query_cuts": 2}, "query_cuts", "2", "1 unless layout = 'postfix'"),
    ],
)
def test_fields_that_contradict_each_other(fields: dict[str, Any], name: str, value: str, allowed: str) -> None:
    with pytest.raises(ValidationError) as caught:
        build_config(FAMILY, fields)
    text = str(caught.value)
    assert f"{name} = {value}: allowed is " in text
    assert allowed in text


@pytest.mark.parametrize(
    "fields",
    [
        {"lr": 0.0},
        {"lr": float("nan")},
        {"dropout": 1.0},
        {"depth": 0},
        {"depth": True},
        {"depth": 2.0},
        {"patience": 3},
        {"data": "half"},
        {"schedule": "linear"},
        {"clip": float("inf")},
        {"ar_bank": 512},
        {"prime_lines": -1},
        {"prime_window": 32},
        {"prime_noise": 0.0},
        {"height_rounding": -0.1},
        {"height_source": "guessed"},
        {"height_every": 0},
    ],
)
def test_values_out_of_bounds_are_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        build_config(FAMILY, fields)


@pytest.mark.parametrize(
    ("fields", "knows"),
    [
        ({}, "class I, past 256"),
        ({"layout": "mlp", "context": 32, "eval_tail": 32, "ar_bank": 1024}, "class I, past 1,024"),
        ({"layout": "mlp", **INFERRED}, "class I', past 300"),
        ({"layout": "mlp", "prime_lines": 9, "prime_window": 300}, "class II, past 300"),
        ({"height_input": True}, "class II, past 256"),
        ({"height_input": True, "height_rounding": 0.0}, "class III, past 256"),
        ({"layout": "mlp", "prime_lines": 9, "prime_phases": "exact"}, "class III, past 256"),
    ],
)
def test_what_a_model_may_know_is_said(fields: dict[str, Any], knows: str) -> None:
    assert str(knowledge(build_config(FAMILY, fields))) == knows


def test_classes_are_in_order() -> None:
    assert [name for name in CLASSES if known("II", 300).covers(known(name, 256))] == ["I", "I'", "II"]
    assert not known("III", 256).covers(known("I", 300))


def test_the_family_loads_nothing_heavy() -> None:
    code = (
        "import sys; from trainables.registry import get_family; get_family('spacing_mdn');"
        "print([name for name in ('torch', 'numpy', 'pydantic', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
