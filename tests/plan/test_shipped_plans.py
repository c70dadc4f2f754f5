"""Every plan that ships can be run as it stands, and compares what its first lines say."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from search_spaces.registry import get_space, outside
from trainables.shared_moe.accounting import active_ffn, count_params, matmul_params
from tune_rh.cli.main import main
from tune_rh.plan import cost
from tune_rh.plan.configs import named_config
from tune_rh.plan.file import SHIPPED, find_plan, load_frozen, load_plan
from tune_rh.plan.schema import Plan
from tune_rh.run.preflight import check_plan

NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))


def shipped(name: str) -> Plan:
    return load_plan(find_plan(name))


def config(plan: Plan, name: str) -> Any:
    return named_config(plan, name)[0]


def configs(plan: Plan) -> dict[str, Any]:
    return {name: config(plan, name) for name in (plan.control, *plan.presets, *plan.references)}


def changed(plan: Plan, name: str) -> dict[str, Any]:
    """Fields of a named config that are not the control's."""
    control, other = config(plan, plan.control).model_dump(), config(plan, name).model_dump()
    return {field: value for field, value in other.items() if value != control[field]}


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_passes_every_check_and_is_named_as_its_file(name: str) -> None:
    plan = shipped(name)
    check_plan(plan)
    assert plan.name == name
    assert find_plan(name).read_text().startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_of_a_run_reads_as_the_plan_that_was_given(name: str, tmp_path: Path) -> None:
    plan = shipped(name)
    (tmp_path / "plan.toml").write_text(plan.toml())
    assert load_frozen(tmp_path / "plan.toml") == plan
    assert load_plan(tmp_path / "plan.toml") == plan  # as a resumed run resolves it again


@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_says_what_would_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", name, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name}: ")
    assert "steps" in said


def test_a_search_without_a_plan_lists_them_in_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--runner", "local"]) == 2
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows] == NAMES
    assert "│ quickstart │ spacing_mdn │ The main job: real zeta zeros, minutes on two cores. │" in rows
    assert "│ half-params │ shared_moe │ What does half of the parameters cost? │" in rows


@pytest.mark.parametrize("name", [name for name in NAMES if shipped(name).family == "shared_moe"])
def test_language_models_train_to_the_end_of_their_schedule_and_no_further(name: str) -> None:
    plan = shipped(name)
    ends = {config.schedule_steps for config in configs(plan).values()}
    assert ends == {plan.stages[-1].until_step}


def test_fading_coefficients_are_the_controls_before_anything_is_cut() -> None:
    plan = shipped("aux-schedule")
    starts = {}
    for name in plan.presets:
        fields = changed(plan, name)
        assert fields.keys() == {"aux_loss_coef_start", "aux_warmup_frac", "aux_decay_end_frac"}
        starts[name] = fields["aux_loss_coef_start"]
        faded = fields["aux_decay_end_frac"] * config(plan, name).schedule_steps
        assert 0 < fields["aux_warmup_frac"] < fields["aux_decay_end_frac"]
        assert faded < plan.stages[0].until_step
    assert starts == {"05-to-01": 0.05, "03-to-01": 0.03}
    assert config(plan, plan.control).aux_loss_coef_end == 0.01


def test_experts_a_token_are_compared_on_one_schedule_long_or_short() -> None:
    assert {name: changed(shipped("topk-midsize"), name) for name in shipped("topk-midsize").presets} == {
        "midsize-top3": {"top_k": 3},
        "midsize-top4": {"top_k": 4},
        "midsize-matched": {"top_k": 3, "d_ff": 2184},
        "midsize-matched-depth26": {"top_k": 3, "d_ff": 2184, "depth": 26},
    }
    (command,) = re.findall(r"tune-rh search topk-midsize (.*)", find_plan("topk-midsize").read_text())
    overrides = [word for word in shlex.split(command) if word != "--set"]
    short = load_plan(find_plan("topk-midsize"), overrides)
    check_plan(short)
    assert {c.schedule_steps for c in configs(short).values()} == {short.stages[-1].until_step} == {2000}
    assert {c.lr_at(2000) for c in configs(short).values()} == {0.0}


def test_half_the_parameters_may_not_fall_behind_the_control() -> None:
    plan = shipped("half-params")
    assert plan.rules.gap is not None
    assert (plan.rules.gap.first, plan.rules.gap.widening) == (0.10, 0.01)
    sizes = {name: count_params(config) for name, config in configs(plan).items()}
    whole = sizes.pop(plan.control)
    assert sizes.keys() == {"half-notes", "half-matched"}
    assert all(0.45 <= size / whole <= 0.55 for size in sizes.values())
    space = get_space(plan.family, plan.space)
    assert space.check is not None
    assert plan.num_candidates > len(plan.presets)
    assert set(plan.presets) - outside(plan.family, space).keys() == {"half-matched"}


@pytest.mark.parametrize("name", [name for name in NAMES if shipped(name).gate(0).promote])
def test_a_rule_of_promotion_has_a_gate_to_act_at(name: str) -> None:
    # A gate that takes exactly its top asks no rule.
    assert any(stage.top is None for stage in shipped(name).stages[:-1])


def test_the_lean_matrix_is_the_same_at_both_sizes() -> None:
    large, small = shipped("lean-moe"), shipped("lean-moe-tiny")
    assert large.presets == small.presets == ("aux-0", "aux-0.005", "aux-0.02")
    for name in large.presets:
        assert changed(large, name) == changed(small, name)
        assert {field for field in changed(large, name) if field != "balance"} == {
            "aux_loss_coef_start",
            "aux_loss_coef_end",
        }
    assert large.rules.promote == small.rules.promote
    # What collapse is does not depend on the size; when it can be told from the beginning does.
    assert [b.model_copy(update={"after_step": 0}) for b in large.rules.health] == [
        b.model_copy(update={"after_step": 0}) for b in small.rules.health
    ]
    assert {c.data for c in configs(large).values()} == {"wikitext-103"}
    assert {c.data for c in configs(small).values()} == {"wiki"}


@pytest.mark.parametrize("name", ["lean-moe", "lean-moe-tiny"])
def test_follow_ups_ask_for_one_expert_then_for_fewer_and_more(name: str) -> None:
    plan = shipped(name)
    routing, number = plan.follow_ups
    assert (routing.after, routing.enters, routing.changes) == (0, 0, ({"top_k": 1, "gate": "prob"},))
    assert (number.after, number.enters) == (0, 1)
    experts = config(plan, plan.control).num_experts
    assert [change["num_experts"] / experts for change in number.changes] == [0.5, 1.5]


@pytest.mark.parametrize("name", ["lean-moe", "lean-moe-tiny"])
def test_the_dense_reference_costs_a_token_what_the_control_costs(name: str) -> None:
    plan = shipped(name)
    control, (dense,) = config(plan, plan.control), (config(plan, name) for name in plan.references)
    assert (dense.ffn, dense.blocks) == ("dense", "indexed")
    assert active_ffn(dense) == active_ffn(control)
    assert matmul_params(dense) == pytest.approx(matmul_params(control), rel=0.01)


def test_the_small_matrix_fits_a_coffee_break() -> None:
    # Ten steps a second of 8 x 128 tokens, on each of two cores.
    assert sum(stage.steps for stage in cost.expected(shipped("lean-moe-tiny"))) <= 10_000


@pytest.mark.parametrize("name", ["plateau-ablation", "navg", "localise", "structural-arms", "warm-track"])
def test_every_question_of_the_campaign_has_a_small_twin_that_asks_the_same(name: str) -> None:
    large, small = shipped(name), shipped(f"{name}-tiny")
    asked, twin = ({(arm.estimator, arm.mode) for arm in configs(plan).values()} for plan in (large, small))
    assert twin <= asked
    assert asked - twin <= {("holo", "softmax")}  # the dearest of all
    assert len(large.seeds) == 3
    assert len(small.seeds) >= 2


@pytest.mark.parametrize("name", ["bptt-rescue", "bptt-rescue-tiny"])
def test_the_rescue_tries_every_rate_with_every_bound(name: str) -> None:
    plan = shipped(name)
    tried = {(config.lr, config.jr_max) for config in configs(plan).values()}
    rates = sorted({lr for lr, _ in tried})
    assert tried == set(itertools.product(rates, (8.0, 16.0, 32.0)))
    assert [round(rate / rates[0]) for rate in rates] == [1, 2, 3, 4]
    assert all(config.estimator == "bptt" and config.jr_mode == "controller" for config in configs(plan).values())
    assert plan.stages[-1].num_seeds >= 2


def test_the_plateau_is_asked_of_every_estimator_and_of_reverse_mode_through_everything() -> None:
    arms = configs(shipped("plateau-ablation"))
    assert {config.estimator for config in arms.values()} == {
        "aep_dyadic", "ep", "aep_frozen", "aep_frozen_rc", "holo", "implicit", "bptt",
    }  # fmt: skip
    deepest = arms["bptt-800"]
    assert deepest.bptt_steps == deepest.t1 == 800


def test_what_is_localised_varies_the_nudge_the_free_phase_and_the_readout() -> None:
    plan = shipped("localise")
    varied = [changed(plan, name).keys() for name in plan.presets]
    assert {"beta"} in varied
    assert {"head_clamp_step"} in varied
    assert {"estimator", "t1_refine"} in varied
    assert {"estimator", "head_clamp_step"} in varied
