"""Checks of plan and machine: each fires on what it is for and on nothing else, on machines that need not be there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from trainables.api import Finding, Footprint, Preflight
from trainables.registry import get_part
from tune_rh.plan.file import find_plan, load_plan, resolve_plan
from tune_rh.plan.schema import ACCELERATOR_LABEL, Plan, Resources
from tune_rh.preflight.checks import Subject, check, check_room, check_threads, num_slots, room
from tune_rh.preflight.environment import GIB, MIB, Env, Node, size, survey
from tune_rh.run.preflight import subjects

A100 = Env("cuda", 500 * GIB, 40 * GIB, 39 * GIB, bf16=True, fused_attention=True, nodes=(Node(32, 2),))
LAPTOP = Env("cpu", 100 * GIB, 16 * GIB, 12 * GIB, bf16=False, fused_attention=True, nodes=(Node(4),))
LARGE = Footprint(10**9, 4 * GIB, GIB)


def moe_plan(**changes: Any) -> Plan:
    """A long run of a language model on a GPU."""
    fields: dict[str, Any] = {
        "name": "long",
        "family": "shared_moe",
        "control": "control",
        "presets": ["indexed-dense"],
        "num_candidates": 1,
        "seeds": [1, 2],
        "eval_every": 500,
        "save_every": 5000,
        "stages": [{"until_step": 5000, "num_seeds": 1}, {"until_step": 50_000, "num_seeds": 2}],
        "resources": {"cpu": 4, "gpu": 1.0},
    }
    return resolve_plan({**fields, **changes})


def found(plan: Plan, env: Env = A100, *, strict: bool = False) -> list[Finding]:
    return check(plan, subjects(plan), get_part(plan.family, "preflight"), env, strict=strict)


def ids(findings: Iterable[Finding]) -> list[str]:
    return [finding.id for finding in findings]


def of(footprint: Footprint, env: Env, plan: Plan | None = None, *, strict: bool = False) -> list[Finding]:
    """What is found of a config that has this footprint."""
    about = Preflight(footprint=lambda config: footprint)
    return check(plan or moe_plan(), [Subject("config 'one'", None)], about, env, strict=strict)


def test_a_toy_in_float32_on_an_accelerator_without_checkpoints_is_refused_with_everything_at_once() -> None:
    plan = moe_plan(control="cpu-tiny", presets=["cpu-tiny-dense"], save_every=None, fixed={"amp": "off"})
    findings = found(plan)
    assert {finding.level for finding in findings} == {"refuse"}
    of_control = [finding for finding in findings if finding.part == "preset 'cpu-tiny'"]
    assert ids(of_control) == ["P10", "P30", "P31", "P32"]
    assert [(f.id, f.part) for f in findings if f not in of_control] == [
        ("P10", "preset 'cpu-tiny-dense'"),
        ("P20", "save_every"),
        ("P30", "preset 'cpu-tiny-dense'"),
        ("P31", "preset 'cpu-tiny-dense'"),
        ("P32", "preset 'cpu-tiny-dense'"),
    ]
    said = {finding.id: str(finding) for finding in of_control}
    assert "amp = 'off'" in said["P10"]
    assert "context = 128: a long run is worth 1024" in said["P31"]
    assert "width = 128: a long run is worth 256" in said["P32"]


def test_the_same_toy_of_the_other_family_is_refused_as_well() -> None:
    overrides = ["control='cpu-e4'", "presets=['cpu-e5']", "fixed={amp='off'}", "save_every=20000"]
    plan = load_plan(find_plan("e4-vs-e5"), overrides)
    assert set(ids(found(plan))) == {"P10", "P20", "P30", "P32"}


@pytest.mark.parametrize("name", ["lean-moe", "half-params", "aux-schedule", "e55-race", "e4-vs-e5"])
def test_long_plans_that_ship_pass_on_an_accelerator(name: str) -> None:
    assert found(load_plan(find_plan(name)), replace(A100, memory=80 * GIB, free_memory=79 * GIB)) == []


def test_smaller_micro_batches_bring_a_plan_that_ships_onto_half_the_memory() -> None:
    assert set(ids(found(load_plan(find_plan("lean-moe"))))) == {"P22"}
    assert found(load_plan(find_plan("lean-moe"), ["fixed.accumulation=4"])) == []


@pytest.mark.parametrize("name", ["quickstart", "lean-moe-tiny"])
def test_small_plans_that_ship_pass_on_a_laptop_and_are_toys_when_taken_strictly(name: str) -> None:
    plan = load_plan(find_plan(name))
    assert found(plan, LAPTOP) == []
    assert {"P20", "P30", "P32"} <= set(ids(found(plan, LAPTOP, strict=True)))


def test_short_runs_and_runs_on_a_cpu_may_be_of_toys() -> None:
    stages = [{"until_step": 4500, "num_seeds": 2}]
    toy: dict[str, Any] = {"control": "cpu-tiny", "presets": ["cpu-tiny-dense"]}
    assert found(moe_plan(**toy, stages=stages, save_every=None)) == []
    assert found(moe_plan(**toy, resources={"cpu": 2}), LAPTOP) == []


@pytest.mark.parametrize(
    ("save_every", "env", "level"),
    [(None, A100, "refuse"), (None, LAPTOP, "warn"), (500, A100, None), (50_000, A100, None), (50_500, A100, "refuse")],
)
def test_many_steps_need_checkpoints(save_every: int | None, env: Env, level: str | None) -> None:
    resources = {"cpu": 1, "gpu": 1.0 if env is A100 else 0.0}
    plan = moe_plan(save_every=save_every, resources=resources)
    small = Footprint(1000, 1000)
    assert [f.level for f in of(small, env, plan) if f.id == "P20"] == ([] if level is None else [level])


@pytest.mark.parametrize(
    ("footprint", "env", "expected"),
    [
        (Footprint(10, 10, amp="off"), A100, ["P10"]),
        (Footprint(10, 10, amp="auto"), A100, []),
        (Footprint(10, 10, amp="off"), replace(A100, bf16=False), []),
        (Footprint(10, 10, amp="off"), LAPTOP, []),
        (Footprint(10, 10, amp="bf16"), replace(A100, bf16=False), ["P11"]),
        (Footprint(10, 10, amp="bf16"), LAPTOP, ["P11"]),
        (Footprint(10, 10, amp="bf16"), replace(LAPTOP, bf16=True), []),
        (Footprint(10, 10, attention="math"), A100, ["P12"]),
        (Footprint(10, 10), replace(A100, fused_attention=False), ["P12"]),
        (Footprint(10, 10, attention="none"), replace(A100, fused_attention=False), []),
        (Footprint(10, 10, attention="math"), LAPTOP, []),
        (Footprint(10, 10, attention="flash", amp="off"), replace(A100, bf16=False), ["P13"]),
        (Footprint(10, 10, attention="flash"), A100, []),
    ],
)
def test_precision_and_kernels_are_those_of_the_device(footprint: Footprint, env: Env, expected: list[str]) -> None:
    plan = moe_plan(resources={"cpu": 1, "gpu": 1.0 if env.device == "cuda" else 0.0})
    assert ids(of(footprint, env, plan)) == expected


def test_a_job_fits_into_its_share_of_memory_and_into_what_is_free_of_it() -> None:
    # 18 bytes a parameter, .6 of 4 GiB of activations, 1 GiB of logits, and a quarter on top: 25.2 GiB.
    assert of(LARGE, A100) == []
    said = str(of(LARGE, replace(A100, free_memory=20 * GIB))[0])
    assert said.startswith("P22 config 'one': a job takes about 25,")
    assert "(25.20 GiB); its share is 40,960 MiB (40.00 GiB), of which 20,480 MiB (20.00 GiB) are free" in said
    halved = moe_plan(resources={"cpu": 1, "gpu": 0.5})
    assert ids(of(LARGE, A100, halved)) == ["P22"]
    assert ids(of(LARGE, replace(A100, memory=None, free_memory=None), halved)) == []


def test_jobs_beside_each_other_share_a_machines_memory() -> None:
    middling = Footprint(10**8, GIB)  # 1.25 (1.6e9 + 1 GiB + .375 GiB) = 3.6 GiB
    one, four = (moe_plan(resources={"cpu": cpu}) for cpu in (4, 1))
    assert of(middling, LAPTOP, one) == []
    assert ids(of(middling, LAPTOP, four)) == ["P22"]
    assert of(middling, LAPTOP, four.model_copy(update={"resources": Resources(slots=3)})) == []


def test_gradient_checkpointing_that_is_off_is_refused_where_it_would_be_needed() -> None:
    off, on = replace(LARGE, checkpointing=False), replace(LARGE, checkpointing=True)
    assert ids(of(off, A100)) == ["P14"]
    assert of(on, A100) == of(LARGE, A100) == of(off, replace(A100, memory=80 * GIB, free_memory=80 * GIB)) == []
    assert of(off, A100, moe_plan(stages=[{"until_step": 4500, "num_seeds": 1}], save_every=None)) == []


def test_a_run_needs_room_on_the_disk_for_every_checkpoint_that_stays() -> None:
    little = Footprint(10**8, 0)
    each = 12 * 10**8 + 2**16
    # Control and one preset, two seeds in the end: four members, each with two gates, the newest two and the best at
    # most, and two slots that write.
    need = int(1.1 * each * (4 * 4 + 2))
    assert of(little, replace(A100, free_disk=need)) == []
    said = str(of(little, replace(A100, free_disk=need - 1))[0])
    assert said.startswith("P21 disk: ")
    assert f"a run needs {size(need)} at the least, with checkpoints of {size(each)}" in said
    assert ids(of(Footprint(1, 1), replace(A100, free_disk=255 * MIB))) == ["P21"]


def test_sizes_are_said_in_both_units() -> None:
    assert size(1.5 * GIB) == "1,536 MiB (1.50 GiB)"


@pytest.mark.parametrize(
    ("resources", "nodes", "cluster", "expected"),
    [
        ({"cpu": 8}, (Node(4),), False, ["P80 resources.cpu = 8: this machine has 4"]),
        ({"cpu": 1, "gpu": 1.0}, (Node(4),), False, ["P80 resources.gpu = 1: this machine has 0"]),
        ({"cpu": 2, "gpu": 0.5}, (Node(4, 1),), False, []),
        (
            {"cpu": 6, "gpu": 1.0},
            (Node(8), Node(4, 2)),
            True,
            [
                "P80 resources.cpu = 6: no node of the cluster can ever give that to a job; they have 8, 4",
                "P80 resources.gpu = 1: no node of the cluster can ever give that to a job; they have 0, 2",
            ],
        ),
        ({"cpu": 999}, None, True, []),
        (
            {"cpu": 6, "memory_gib": 3},
            (Node(8, 0, 2 * GIB, name="h1"), Node(4, 0, 2.5 * GIB, name="h2")),
            True,
            [
                "P80 resources.memory_gib = 3: no node of the cluster can ever give that to a job; they have "
                "2 (h1), 2.5 (h2)"
            ],
        ),
        (
            {"custom": {"fpga": 2, "link": 0.5}},
            (Node(8, custom={"fpga": 1.0, "link": 1.0}, name="h1"), Node(4, custom={}, name="h2")),
            True,
            [
                "P80 resources.custom.fpga = 2: no node of the cluster can ever give that to a job; they have "
                "1 (h1), 0 (h2)"
            ],
        ),
        (
            {"labels": {"market": "spot"}},
            (Node(8, labels={"market": "demand", "zone": "a"}, name="h1"), Node(4, labels={}, name="h2")),
            True,
            [
                "P80 resources.labels.market = 'spot': no node of the cluster can ever give that to a job; they have "
                "'demand' (h1), none (h2); labels that they have: zone"
            ],
        ),
        (
            {"gpu": 1.0, "accelerator": "A100"},
            (Node(8, 4, labels={ACCELERATOR_LABEL: "H200"}, name="h1"),),
            True,
            [
                "P80 resources.accelerator = 'A100': no node of the cluster can ever give that to a job; they have "
                "'H200' (h1)"
            ],
        ),
        (
            {"labels": {"market": "spot"}},
            (Node(4, labels={}),),
            False,
            ["P80 resources.labels.market = 'spot': this machine has none"],
        ),
        # Each is there, on nodes of its own.
        (
            {"cpu": 6, "labels": {"market": "spot"}},
            (Node(8, labels={"market": "demand"}), Node(4, labels={"market": "spot"})),
            True,
            [
                "P80 resources.cpu = 6: no node of the cluster can ever give that to a job; they have 8, 4",
                "P80 resources.labels.market = 'spot': no node of the cluster can ever give that to a job; they have "
                "'demand', 'spot'",
            ],
        ),
        ({"memory_gib": 999, "custom": {"fpga": 1}, "labels": {"market": "spot"}}, (Node(1),), False, []),
    ],
)
def test_what_no_node_can_give_is_refused(
    resources: dict[str, Any], nodes: Any, cluster: bool, expected: list[str]
) -> None:
    assert [str(finding) for finding in check_room(Resources(**resources), nodes, cluster=cluster)] == expected


def test_room_counts_jobs_that_fit_at_a_time() -> None:
    assert room(Resources(cpu=2), [Node(5), Node(2)]) == 3
    assert room(Resources(cpu=2, gpu=0.5), [Node(16, 2)]) == 4
    assert num_slots(Resources(cpu=1, slots=2), LAPTOP) == 2
    assert num_slots(Resources(cpu=1, slots=9), LAPTOP) == 4


@pytest.mark.parametrize(
    ("asked", "nodes", "jobs"),
    [
        ({"gpu": 0.4}, [Node(99, 2)], 4),
        ({"gpu": 0.3}, [Node(99, 8)], 24),
        ({"gpu": 0.1}, [Node(99, 1)], 10),
        ({"gpu": 0.5}, [Node(99, 3)], 6),
        ({"gpu": 0.4}, [Node(99, 1), Node(99, 1)], 4),
        ({"gpu": 0.4}, [Node(99, 1.5)], 3),  # others have half of the second
        ({"gpu": 0.4}, [Node(99, 0.3)], 0),
        ({"gpu": 1.0}, [Node(99, 5), Node(99, 1)], 6),
        ({"gpu": 0.3}, [Node(5, 8)], 5),
    ],
)
def test_a_share_of_a_gpu_comes_from_one_gpu(asked: dict[str, Any], nodes: list[Node], jobs: int) -> None:
    assert room(Resources(**asked), nodes) == jobs


@pytest.mark.parametrize(
    ("asked", "nodes", "jobs"),
    [
        ({"cpu": 0.5}, [Node(2), Node(1)], 6),
        ({"cpu": 0.3}, [Node(1), Node(1)], 6),  # no job is half on one node and half on another
        ({"cpu": 0.1}, [Node(1)], 10),
        ({"memory_gib": 1.5}, [Node(9, memory=4 * GIB), Node(9, memory=3 * GIB)], 4),
        ({"memory_gib": 1.5}, [Node(9)], 9),
        ({"custom": {"fpga": 2}}, [Node(9, custom={"fpga": 5.0}), Node(9, custom={})], 2),
        ({"custom": {"link": 0.25}, "cpu": 2}, [Node(9, custom={"link": 1.0})], 4),
        ({"labels": {"market": "spot"}}, [Node(2, labels={"market": "spot", "zone": "a"}), Node(9, labels={})], 2),
        (
            {"gpu": 0.5, "accelerator": "A100"},
            [Node(9, 2, labels={ACCELERATOR_LABEL: "A100"}), Node(9, 8, labels={})],
            4,
        ),
        ({"gpu": 0.5, "accelerator": "A100", "labels": {"market": "spot"}}, [Node(9, 2, labels={"market": "spot"})], 0),
    ],
)
def test_a_job_takes_all_that_it_asks_for_from_one_node(asked: dict[str, Any], nodes: list[Node], jobs: int) -> None:
    assert room(Resources(**asked), nodes) == jobs


def test_a_job_on_a_cpu_fits_into_the_memory_that_it_is_counted_with() -> None:
    middling = Footprint(10**8, GIB)  # 1.25 (1.6e9 + 1 GiB + .375 GiB) = 3.6 GiB
    assert of(middling, LAPTOP, moe_plan(resources={"cpu": 4, "memory_gib": 4})) == []
    (said,) = of(middling, LAPTOP, moe_plan(resources={"cpu": 4, "memory_gib": 3}))
    assert (said.id, "its share is 3,072 MiB" in said.message) == ("P22", True)


@pytest.mark.parametrize(("cpu", "threads"), [(0.25, 1), (1, 1), (3, 3)])
def test_a_share_of_a_core_is_one_thread(cpu: float, threads: int) -> None:
    assert Resources(cpu=cpu).threads == threads
    env = replace(LAPTOP, num_threads=threads)
    assert list(check_threads(Resources(cpu=cpu), env)) == []
    assert len(list(check_threads(Resources(cpu=cpu), replace(env, num_threads=threads + 1)))) == 1


def test_an_environment_that_takes_more_than_a_jobs_share_is_warned_of() -> None:
    env = replace(A100, wait_policy="ACTIVE", num_threads=32)
    assert [(f.id, f.part, f.level) for f in of(Footprint(1, 1), env)] == [
        ("P80", "OMP_WAIT_POLICY", "warn"),
        ("P80", "OMP_NUM_THREADS", "warn"),
    ]
    assert of(Footprint(1, 1), replace(A100, wait_policy="PASSIVE", num_threads=4)) == []


def test_a_family_adds_checks_of_its_own() -> None:
    about = Preflight(check=lambda config: [Finding("P61", "window", "as wide as the sequence")])
    assert ids(check(moe_plan(), [Subject("preset 'a'", None)], about, A100)) == ["P61"]


def test_of_many_draws_the_largest_is_told_of_once() -> None:
    about = Preflight(footprint=lambda config: Footprint(config, 0))
    draws = [Subject("space 'wide'", n * 10**9) for n in (3, 5, 4)]
    (said,) = [f for f in check(moe_plan(), draws, about, replace(A100, free_disk=10**15)) if f.id == "P22"]
    assert f"about {size(int(1.25 * 18 * 5 * 10**9))}" in said.message


def test_this_machine_can_be_looked_at(tmp_path: Any) -> None:
    env = survey(Resources(), tmp_path, environ={"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "3"})
    assert (env.device, env.wait_policy, env.num_threads) == ("cpu", "ACTIVE", 3)
    assert env.memory is not None
    assert env.free_memory is not None
    assert 0 < env.free_memory <= env.memory
    assert env.free_disk > 0
    assert env.nodes is not None
    assert env.nodes[0].cpus >= 1
    asked = survey(Resources(gpu=1), tmp_path, environ={})
    assert (asked.device, asked.nodes) == ("cuda", (Node(env.nodes[0].cpus, torch.cuda.device_count()),))
    elsewhere = survey(Resources(gpu=1), tmp_path, address="head:6379", environ={})
    assert elsewhere == Env("cuda", elsewhere.free_disk)
