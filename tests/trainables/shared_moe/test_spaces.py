"""What the spaces of `shared_moe` ask for and solve for; the laws of all are in
``tests/search_spaces/test_search_spaces.py``.

No constraint is met by luck.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from search_spaces import shared_moe
from search_spaces.api import RandomTrial, Space, Trial, Unsatisfiable
from search_spaces.shared_moe import SPACES, experts_of_half, width_of_matched
from tests.worlds.plans import fields as plan_fields
from trainables.registry import build_config, get_family
from trainables.shared_moe.accounting import Size, active_ffn, count_params, matmul_params
from tune_rh.decide.samplers import inside
from tune_rh.errors import PlanError
from tune_rh.plan.file import resolve_plan
from tune_rh.plan.kinds import Sampler
from tune_rh.plan.schema import Plan
from tune_rh.run.preflight import check_plan

FAMILY = get_family("shared_moe")
CONTROL = build_config(FAMILY, preset="control")
EVERY = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def drawn_configs(name: str, num: int = 300) -> list[Any]:
    space = SPACES[name]
    return [build_config(FAMILY, space.suggest(RandomTrial(seed)), preset=space.base) for seed in range(num)]


@pytest.mark.parametrize("preset", sorted(FAMILY.presets))
def test_a_size_has_all_that_the_counts_read(preset: str) -> None:
    config = build_config(FAMILY, preset=preset)
    size = Size.of(config.model_dump())
    for count in (count_params, matmul_params, active_ffn):
        assert count(size) == count(config)


def test_the_size_that_constraints_refer_to_is_the_controls() -> None:
    assert Size() == Size.of(CONTROL.model_dump()) == Size.of({}) == shared_moe.CONTROL


@pytest.mark.parametrize("name", ["routing-half-params", "routing-half-matched"])
def test_half_is_half(name: str) -> None:
    configs = drawn_configs(name)
    shares = [count_params(config) / count_params(CONTROL) for config in configs]
    assert 0.45 <= min(shares) <= max(shares) <= 0.55
    # Nearest to one half: one expert more or fewer would be further off.
    for config, share in zip(configs, shares, strict=True):
        for number in (config.num_experts - 1, config.num_experts + 1):
            other = config.model_copy(update={"num_experts": number})
            assert abs(count_params(other) / count_params(CONTROL) - 0.5) > abs(share - 0.5)
    assert {config.tied for config in configs} == {False, True}


@pytest.mark.parametrize("name", ["routing-matched-active", "routing-half-matched"])
def test_matched_is_matched(name: str) -> None:
    configs = drawn_configs(name)
    for config in configs:
        assert abs(active_ffn(config) / active_ffn(CONTROL) - 1) <= 0.02
        assert abs(matmul_params(config) / matmul_params(CONTROL) - 1) <= 0.05
        assert config.d_ff % 8 == 0
    assert {(config.top_k, config.d_ff) for config in configs} == {(1, 4096), (2, 2048), (3, 1368), (4, 1024)}


def test_the_half_of_the_pages_table_is_found_by_solving() -> None:
    # 19 experts with a tied head; with a head of its own, which is 51 M, seven.
    assert experts_of_half({"tied": True}) == 19
    assert experts_of_half({}) == 7


def test_the_number_of_experts_never_falls_below_what_a_token_takes() -> None:
    # Three experts of 24 M are nearest to one half (0.46), four are within bounds (0.55).
    size = {"tied": True, "d_ff": 11_496}
    assert experts_of_half({**size, "top_k": 2}) == 3
    assert experts_of_half({**size, "top_k": 4}) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # Embeddings and a head of their own are too much already.
        ({"width": 1600}, ["num_experts = 2", "0.45 to 0.55", "276,115,496", "0.626 without experts", "width = 1600"]),
        # Two experts are too much, one would be too few.
        ({"d_ff": 16_384}, ["num_experts = 2", "these are 0.635", "d_ff = 16384"]),
        ({"vocab_size": 100_000}, ["num_experts = 2", "vocab_size = 100000", "0.761 without experts"]),
    ],
)
def test_what_no_number_of_experts_satisfies_is_said_by_name(changes: Mapping[str, Any], said: list[str]) -> None:
    with pytest.raises(Unsatisfiable) as caught:
        experts_of_half(changes)
    assert [part for part in said if part not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 512}, ["width = 512", "within 5%", "303,940,608", "depth = 20"]),
        ({"depth": 12}, ["width = 1024", "within 5%", "depth = 12"]),
        # 4096 / 60 = 68.3 lies half way between two multiples of 8.
        ({"top_k": 60}, ["d_ff = 72", "within 2%", "4,194,304", "top_k = 60"]),
    ],
)
def test_what_no_width_satisfies_is_said_by_name(changes: Mapping[str, Any], said: list[str]) -> None:
    with pytest.raises(Unsatisfiable) as caught:
        width_of_matched(changes)
    assert [part for part in said if part not in str(caught.value)] == [], str(caught.value)


@EVERY
def test_a_field_is_asked_for_only_if_it_plays_a_part(space: Space) -> None:
    balanced = {"aux_loss_coef_start", "aux_decay_end_frac"}
    decaying = {"aux_end_share", "aux_warmup_frac"}
    seen = set()
    for seed in range(200):
        trial = RandomTrial(seed)
        drawn = space.suggest(trial)
        asked = trial.params.keys()
        assert (balanced <= asked) == (drawn["balance"] == "aux") == (drawn["aux_loss_coef_start"] > 0)
        decays = drawn["aux_decay_end_frac"] > 0
        assert (decaying <= asked) == decays == (drawn["aux_loss_coef_end"] != drawn["aux_loss_coef_start"])
        if not decays:
            assert not asked & decaying
        seen.add((drawn["balance"], decays))
    assert seen == {("aux", True), ("aux", False), ("lossfree", False), ("none", False)}


@EVERY
def test_the_coefficient_decays_to_a_tenth_at_the_least_and_after_the_warm_up(space: Space) -> None:
    for seed in range(200):
        drawn = space.suggest(RandomTrial(seed))
        start, end = drawn["aux_loss_coef_start"], drawn["aux_loss_coef_end"]
        assert 0.0999 * start <= end <= start
        if end < start:
            assert 0.0 <= drawn["aux_warmup_frac"] <= 0.1 < drawn["aux_decay_end_frac"] <= 0.5


def test_one_expert_a_token_has_a_gate_that_learns() -> None:
    gates = {
        name: {(c.top_k == 1, c.gate) for c in drawn_configs(name)} for name in ("routing", "routing-wide", "cpu-tiny")
    }
    chosen = {(True, "prob"), (False, "topk_softmax")}
    assert gates["routing"] == gates["cpu-tiny"] == chosen
    assert gates["routing-wide"] == chosen | {(True, "sigmoid"), (False, "sigmoid")}


def test_a_share_that_is_read_back_gives_the_same_end_also_at_its_bounds() -> None:
    draw = random.Random(1)
    for share in (0.1, 0.9, 1 / 3, *(draw.uniform(0.1, 0.9) for _ in range(200))):
        start = math.exp(draw.uniform(math.log(1e-3), math.log(1e-1)))
        config = {
            **build_config(FAMILY, preset="control").model_dump(),
            "aux_loss_coef_start": start,
            "aux_loss_coef_end": float(f"{start * share:.6g}"),
            "aux_warmup_frac": 0.05,
            "aux_decay_end_frac": 0.3,
        }
        drawn, params = SPACES["routing-wide"].replay(config)
        assert drawn["aux_loss_coef_end"] == config["aux_loss_coef_end"]
        assert params["aux_end_share"] == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize("start", [0.05, 0.03])
def test_a_named_schedule_is_told_to_the_sampler(start: float) -> None:
    schedule = {"aux_loss_coef_start": start, "aux_loss_coef_end": 0.01, "aux_warmup_frac": 0.05}
    config = build_config(FAMILY, {**schedule, "aux_decay_end_frac": 0.5}, preset="control")
    found = inside(Sampler(), SPACES["routing"], config.model_dump())
    assert found is not None
    assert found.params["aux_end_share"] == 0.01 / start
    assert build_config(FAMILY, found.config, preset="control") == config


def cramped(trial: Trial) -> dict[str, Any]:
    """A space that somebody made over a larger vocabulary."""
    fields = {"tied": False, "vocab_size": 120_000, "lr": trial.suggest_float("lr", 1e-4, 1e-3)}
    return {**fields, "num_experts": experts_of_half(fields)}


CRAMPED = Space(suggest=cramped, base="control")


def plan(space: str, **fixed: Any) -> Plan:
    return resolve_plan(plan_fields(family="shared_moe", space=space, control="control", fixed=fixed))


def test_a_space_that_cannot_be_satisfied_is_refused_before_launch() -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(plan("tests.trainables.shared_moe.test_spaces:CRAMPED"))
    assert "space 'tests.trainables.shared_moe.test_spaces:CRAMPED': num_experts = 2: the space allows 0.45" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("space", "fixed", "said"),
    [
        ("routing-half-params", {"vocab_size": 4096}, "with fixed: num_experts = "),
        ("routing-half-matched", {"vocab_size": 4096}, "with fixed: num_experts = "),
        ("routing-matched-active", {"depth": 12}, "with fixed: width = 1024: the space allows matrix entries"),
        ("routing-half-params", {"num_experts": 40}, "fixed.num_experts = 40: space 'routing-half-params' draws"),
        ("routing", {"aux_loss_coef_end": 0.001}, "fixed.aux_loss_coef_end = 0.001: space 'routing' draws"),
    ],
)
def test_what_is_fixed_over_a_draw_may_not_break_its_constraint(space: str, fixed: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(plan(space, **fixed))
    assert said in str(caught.value)


@pytest.mark.parametrize("space", sorted(SPACES))
def test_every_space_makes_a_plan_that_passes(space: str) -> None:
    fields = plan_fields(family="shared_moe", space=space, control=SPACES[space].base)
    check_plan(resolve_plan(fields))
