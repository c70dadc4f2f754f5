"""What a config refuses, by field, value and what is allowed; what preflight refuses of a run that would be wasted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from search_spaces.api import RandomTrial
from search_spaces.nsa import SPACES
from trainables.nsa import FAMILY
from trainables.nsa.accounting import PREFLIGHT
from trainables.nsa.config import NSAConfig
from trainables.registry import build_config
from tune_rh.cli.main import main
from tune_rh.plan.file import find_plan, load_plan
from tune_rh.plan.schema import Resources
from tune_rh.preflight.environment import GIB, Env, Node
from tune_rh.run.preflight import check_machine


@pytest.mark.parametrize("preset", sorted(FAMILY.presets))
def test_every_preset_builds(preset: str) -> None:
    assert isinstance(build_config(FAMILY, preset=preset), NSAConfig)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n_heads": 5}, "n_heads = 5: allowed is a divisor of width = 128"),
        (
            {"width": 100, "n_heads": 4},
            "n_heads = 4: allowed is one that leaves an even number of entries a head, not 25",
        ),
        ({"kv_groups": 3}, "kv_groups = 3: allowed is a divisor of n_heads = 4"),
        ({"stride": 6}, "stride = 6: allowed is a divisor of block = 16"),
        ({"stride": 16, "select_block": 24}, "select_block = 24: allowed is a multiple of stride = 16"),
        ({"block": 32}, "select_block = 16: allowed is at least block = 32"),
        ({"num_select": 2}, "num_select = 2: allowed is at least 3: the first block and num_local = 2 are always"),
    ],
)
def test_sizes_that_do_not_fit_each_other(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        build_config(FAMILY, fields, preset="cpu-tiny")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [{"select_block": 8}, {"window": 0}, {"num_local": 3}, {"phi": "conv"}, {"gate": "relu"}, {"attn": "full"}],
)
def test_values_out_of_bounds_are_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        build_config(FAMILY, fields, preset="cpu-tiny")


def findings(**fields: Any) -> list[str]:
    assert PREFLIGHT.check is not None
    return [str(finding) for finding in PREFLIGHT.check(build_config(FAMILY, fields, preset="cpu-tiny"))]


def test_a_selection_or_a_window_of_everything_is_refused() -> None:
    assert findings() == []
    assert findings(num_select=31, window=511) == []
    selection, window = findings(num_select=32, window=512)
    assert selection.startswith(
        "P61 num_select x select_block: 32 x 16 = 512: the selection is dense, for a sequence has 512"
    )
    assert window.startswith("P61 window: 512: the window is dense, for a sequence has 512 tokens")
    assert findings(num_select=32, window=512, attn="dense") == []


@pytest.mark.parametrize("name", SPACES)
def test_every_draw_leaves_out_half_of_the_context(name: str) -> None:
    space = SPACES[name]
    seen = set()
    for seed in range(300):
        config = build_config(FAMILY, space.suggest(RandomTrial(seed)), preset=space.base)
        assert config.sparsity.broken_rule() is None
        if config.attn == "nsa":
            assert config.sparsity.selected_tokens <= config.context // 2
            assert config.window <= config.context // 2
            seen.add((config.block, config.stride, config.select_block, config.num_select))
    assert len(seen) > 60


def test_the_run_that_was_not_worth_starting_is_refused_with_every_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    places = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "data")]
    assert main(["preflight", "nsa-showcase-50k", "--strict", "--no-trial", *places]) == 3
    refused = [line for line in capsys.readouterr().out.splitlines() if line.startswith("refused: ")]
    of_control = {line.split()[1] for line in refused if "preset 'showcase'" in line or "config" not in line}
    assert of_control >= {"P20", "P30", "P31", "P32", "P61"}


def test_on_a_gpu_its_arithmetic_and_its_kernels_are_refused_as_well() -> None:
    plan = load_plan(find_plan("nsa-showcase-50k"))
    gpu = Env(device="cuda", nodes=(Node(8, 1),), memory=80 * GIB, free_memory=80 * GIB, free_disk=500 * GIB)
    gpu = replace(gpu, bf16=True, fused_attention=True)
    plan = plan.model_copy(update={"resources": Resources(gpu=1.0)})
    found = {finding.id for finding in check_machine(plan, gpu)}
    assert {"P10", "P12", "P20", "P30", "P31", "P32", "P61"} <= found
    sound = load_plan(find_plan("nsa-50k"))
    assert check_machine(sound, gpu) == []
