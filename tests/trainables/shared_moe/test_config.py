"""The config refuses what makes no sense, by field, value and what is allowed; parameter counts against arithmetic.

What it is not: the module's own count (``test_model.py`` holds the closed form to it).
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from trainables.registry import build_config, get_family
from trainables.shared_moe.accounting import active_ffn, count_params, matmul_params
from trainables.shared_moe.config import SharedMoEConfig

FAMILY = get_family("shared_moe")
DENSE = {
    "ffn": "dense",
    "num_experts": 0,
    "top_k": 0,
    "balance": "none",
    "aux_loss_coef_start": 0.0,
    "aux_loss_coef_end": 0.0,
}
FREE = {"balance": "lossfree", "aux_loss_coef_start": 0.0, "aux_loss_coef_end": 0.0}
DECAY = {"aux_loss_coef_start": 0.05, "aux_loss_coef_end": 0.01}


@pytest.mark.parametrize("preset", sorted(FAMILY.presets))
def test_every_preset_builds(preset: str) -> None:
    config = build_config(FAMILY, preset=preset)
    assert SharedMoEConfig.model_validate_json(config.model_dump_json()) == config


def test_the_defaults_are_the_control() -> None:
    assert SharedMoEConfig() == build_config(FAMILY, preset="control")


@pytest.mark.parametrize(
    ("fields", "name", "value", "allowed"),
    [
        ({"n_heads": 12}, "n_heads", "12", "a divisor of width = 1024"),
        ({"accumulation": 5}, "accumulation", "5", "a divisor of batch_size = 32"),
        ({"batch_size": 4, "accumulation": 8}, "accumulation", "8", "a divisor of batch_size = 4"),
        ({"warmup": 20_001}, "warmup", "20001", "at most schedule_steps = 20000"),
        ({"schedule_steps": 500}, "warmup", "600", "at most schedule_steps = 500"),
        ({"num_experts": 1, "top_k": 1, "gate": "prob"}, "num_experts", "1", "at least 2 with ffn = 'moe'"),
        ({"num_experts": 0}, "num_experts", "0", "at least 2 with ffn = 'moe'"),
        ({"d_ff": 2047}, "d_ff", "2047", "a multiple of 8 with ffn = 'moe'"),
        ({"width": 36, "n_heads": 4}, "width", "36", "a multiple of 8 with ffn = 'moe'"),
        ({"top_k": 41}, "top_k", "41", "1 to num_experts = 40"),
        ({"top_k": 0}, "top_k", "0", "1 to num_experts = 40"),
        ({"top_k": 1}, "gate", "'topk_softmax'", "'prob' or 'sigmoid' with top_k = 1"),
        ({**DENSE, "num_experts": 40}, "num_experts", "40", "0 with ffn = 'dense'"),
        ({**DENSE, "top_k": 2}, "top_k", "2", "0 with ffn = 'dense'"),
        ({**DENSE, "gate": "prob"}, "gate", "'prob'", "'topk_softmax' with ffn = 'dense'"),
        ({**DENSE, "balance": "lossfree"}, "balance", "'lossfree'", "'none' with ffn = 'dense'"),
        ({**DENSE, "z_loss_coef": 0.001}, "z_loss_coef", "0.001", "0.0 with ffn = 'dense'"),
        ({"ffn": "dense"}, "num_experts", "40", "0 with ffn = 'dense'"),
        (
            {"aux_loss_coef_start": 0.0, "aux_loss_coef_end": 0.0},
            "aux_loss_coef_start",
            "0.0",
            "above 0.0 with balance = 'aux'",
        ),
        ({"balance": "none"}, "aux_loss_coef_start", "0.01", "0.0 with balance = 'none'"),
        ({**FREE, "aux_loss_coef_start": 0.02}, "aux_loss_coef_start", "0.02", "0.0 with balance = 'lossfree'"),
        ({**FREE, "aux_warmup_frac": 0.1}, "aux_warmup_frac", "0.1", "0.0 with balance = 'lossfree'"),
        ({**FREE, "aux_decay_end_frac": 0.1}, "aux_decay_end_frac", "0.1", "0.0 with balance = 'lossfree'"),
        ({**FREE, "aux_loss_coef_end": 0.01}, "aux_loss_coef_end", "0.01", "at most aux_loss_coef_start = 0.0"),
        ({"aux_loss_coef_end": 0.02}, "aux_loss_coef_end", "0.02", "at most aux_loss_coef_start = 0.01"),
        (
            {**DECAY, "aux_warmup_frac": 0.3, "aux_decay_end_frac": 0.2},
            "aux_decay_end_frac",
            "0.2",
            "at least aux_warmup_frac = 0.3",
        ),
        (DECAY, "aux_decay_end_frac", "0.0", "above 0.0 with a coefficient that falls from 0.05 to 0.01"),
        ({"aux_loss_coef_start": 0.02}, "aux_decay_end_frac", "0.0", "falls from 0.02 to 0.01: its start would never"),
        ({"aux_decay_end_frac": 0.2}, "aux_decay_end_frac", "0.2", "0.0 with a coefficient that stays at 0.01"),
        ({"aux_warmup_frac": 0.1}, "aux_warmup_frac", "0.1", "0.0 with a coefficient that stays at 0.01"),
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
        {"top_k": 1, "gate": "prob"},
        {"top_k": 1, "gate": "sigmoid"},
        {"top_k": 40},
        {"warmup": 20_000},
        {**DECAY, "aux_warmup_frac": 0.2, "aux_decay_end_frac": 0.2},
        {**FREE, "z_loss_coef": 0.01},
        DENSE,
    ],
)
def test_what_lies_on_a_bound_is_allowed(fields: dict[str, Any]) -> None:
    build_config(FAMILY, fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"lr": 0.0},
        {"lr": float("nan")},
        {"clip": float("inf")},
        {"depth": 0},
        {"depth": True},
        {"depth": 2.0},
        {"context": 1},
        {"vocab_size": 1},
        {"top_k": -1},
        {"num_experts": 4097},
        {"batch_size": 0},
        {"aux_warmup_frac": 1.5},
        {"aux_loss_coef_start": -0.01},
        {"z_loss_coef": float("inf")},
        {"gate": "softmax"},
        {"balance": "off"},
        {"blocks": "own"},
        {"data": "../wiki"},
        {"patience": 3},
    ],
)
def test_values_out_of_bounds_are_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        build_config(FAMILY, fields)


@pytest.mark.parametrize(
    ("preset", "total", "matmul"),
    [
        ("control", 276.115, 303.9),
        ("indexed-dense", 355.901, 303.1),
        ("shared-dense", 116.573, 303.1),
        ("half-notes", 137.050, 88.9),
        ("gpt2-tied", 304.438, 303.1),
        ("midsize", 171.620, 142.7),
        ("midsize-top3", 171.620, 184.6),
        ("midsize-top4", 171.620, 226.6),
        ("midsize-matched", 178.589, 193.0),
        ("midsize-matched-depth26", 178.589, 293.5),
        ("half-matched", 136.486, 303.5),
    ],
)
def test_the_published_sizes_in_millions(preset: str, total: float, matmul: float) -> None:
    config = build_config(FAMILY, preset=preset)
    assert round(count_params(config) / 1e6, 3) == total
    assert round(matmul_params(config) / 1e6, 1) == matmul


def test_matched_midsize_models_have_the_controls_experts_and_depth_brings_the_rest() -> None:
    control, dense, wide, deep = (
        build_config(FAMILY, preset=name)
        for name in ("control", "gpt2-tied", "midsize-matched", "midsize-matched-depth26")
    )
    assert active_ffn(wide) == pytest.approx(active_ffn(control), rel=3e-4)
    assert count_params(deep) == count_params(wide)
    assert [round(matmul_params(config) / matmul_params(dense), 3) for config in (wide, deep)] == [0.637, 0.968]


def test_the_half_size_model_has_exactly_this_many() -> None:
    assert count_params(build_config(FAMILY, preset="half-notes")) == 137_050_152


def test_the_counts_of_a_small_model_by_hand() -> None:
    size = {"vocab_size": 7, "context": 5, "width": 8, "n_heads": 2, "depth": 3, "d_ff": 16, "num_experts": 3}
    config = build_config(FAMILY, size)
    # Attention 4 x 8 x 8 and 4 x 8 biases; two norms of 2 x 8; router 8 x 3 and 3; expert 8 x 16, 16, 16 x 8, 8.
    block = (256 + 32) + (16 + 16) + (24 + 3) + 3 * (128 + 16 + 128 + 8)
    tables = 7 * 8 + 5 * 8
    assert count_params(config) == tables + block + 16 + 7 * 8 == 1355
    changed = {
        "tied": -56,
        "depth_embedding": 3 * 8,
    }
    for name, difference in changed.items():
        assert count_params(config.model_copy(update={name: True})) == 1355 + difference
    assert count_params(config.model_copy(update={"blocks": "indexed"})) == 1355 + 2 * block
    dense = build_config(FAMILY, size | DENSE)
    assert count_params(dense) == tables + (288 + 32 + 280) + 16 + 56
    # A token: attention 256, two experts of 256, the router 24, three times over; the head.
    assert active_ffn(config) == 512
    assert matmul_params(config) == 3 * (256 + 512 + 24) + 56
    assert matmul_params(config.model_copy(update={"tied": True})) == matmul_params(config)
    assert active_ffn(dense) == 256
    assert matmul_params(dense) == 3 * (256 + 256) + 56


def test_sharing_costs_no_compute_and_experts_cost_what_a_token_meets() -> None:
    config = build_config(FAMILY, preset="control")
    indexed = config.model_copy(update={"blocks": "indexed"})
    assert matmul_params(indexed) == matmul_params(config)
    more = config.model_copy(update={"num_experts": 60})
    assert matmul_params(more) - matmul_params(config) == 20 * 20 * 1024
    assert active_ffn(more) == active_ffn(config)


def test_the_family_loads_nothing_heavy() -> None:
    code = (
        "import sys; from trainables.registry import get_family; get_family('shared_moe');"
        "print([name for name in ('torch', 'numpy', 'pydantic', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
