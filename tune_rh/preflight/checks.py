"""What speaks against training the configs of a plan on a machine: pure functions of configs and `Env`.

``docs/preflight.md`` lists the ids. Every finding is returned, none is raised. Not here: whether a config is valid at
all, nor whether its task works.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainables.api import Finding, Footprint, Preflight
from tune_rh.plan.schema import ACCELERATOR_LABEL, Plan, Resources
from tune_rh.preflight.environment import GIB, MIB, Env, Node, size
from tune_rh.preflight.estimates import MARGIN, checkpoint_bytes, run_bytes, training_bytes

LONG_STEPS = 5000
"""From so many steps on a run on an accelerator is long: what would waste it is refused."""
MIN_FREE_DISK = 256 * MIB


@dataclass(frozen=True)
class Subject:
    """A valid config as a plan trains it.

    Attributes:
        part: where it comes from: ``preset 'e4'``, ``space 'wide'``.
        preset: that it is made from; None: the family's defaults.
    """

    part: str
    config: Any
    preset: str | None = None


def check(
    plan: Plan, subjects: Iterable[Subject], about: Preflight, env: Env, *, strict: bool = False, left: float = 1.0
) -> list[Finding]:
    """Everything that speaks against it, each id once a part; of many draws the largest is told of.

    Args:
        plan: how long the configs are trained, and on what.
        subjects: the configs.
        about: what their family knows of them.
        env: what there is.
        strict: take any run for a long one.
        left: share of the run that is still to come.
    """
    long = strict or (env.device == "cuda" and plan.stages[-1].until_step >= LONG_STEPS)
    sized = [(subject, about.footprint(subject.config) if about.footprint else None) for subject in subjects]
    sized.sort(key=lambda pair: -_weight(pair[1]))  # stable: presets stay in the plan's order where nothing is known
    found: dict[tuple[str, str], Finding] = {}
    for subject, footprint in sized:
        of_config = [*_toy(subject, about), *_checkpointing(subject, footprint, plan, env)] if long else []
        of_config += [*_precision(subject, footprint, env), *_memory(subject, footprint, plan, env)]
        of_config += about.check(subject.config) if about.check else ()
        for finding in of_config:
            found.setdefault((finding.id, finding.part), finding)
    of_plan = [*check_saves(plan, long=long), *check_disk(plan, [f for _, f in sized if f], env, left)]
    of_plan += [*check_room(plan.resources, env.nodes), *check_threads(plan.resources, env)]
    return sorted([*found.values(), *of_plan], key=lambda finding: finding.id)


def check_saves(plan: Plan, *, long: bool) -> Iterator[Finding]:
    """P20: many steps need checkpoints beside those of gates and of the best."""
    steps, every = plan.stages[-1].until_step, plan.save_every
    if every is None and (long or steps >= LONG_STEPS):
        yield Finding(
            "P20",
            "save_every",
            f"not set, and members train for {steps} steps: allowed is {plan.eval_every} to {steps}, a multiple of "
            f"eval_every = {plan.eval_every}",
            "refuse" if long else "warn",
        )
    elif every is not None and every > steps:
        yield Finding("P20", "save_every", f"{every} is more than the {steps} steps of a member, so it never saves")


def check_disk(plan: Plan, footprints: Iterable[Footprint], env: Env, left: float = 1.0) -> Iterator[Finding]:
    """P21: what is still to come of a run, the share ``left``, has room on the disk."""
    largest = max(map(checkpoint_bytes, footprints), default=0)
    need = int(left * run_bytes(plan, largest, num_slots(plan.resources, env)))
    if env.free_disk < max(need, MIN_FREE_DISK):
        each = f", with checkpoints of {size(largest)}" if largest else ""
        yield Finding(
            "P21",
            "disk",
            f"{size(env.free_disk)} free; a run needs {size(max(need, MIN_FREE_DISK))} at the least{each}",
        )


def check_room(resources: Resources, nodes: Sequence[Node] | None, *, cluster: bool = False) -> Iterator[Finding]:
    """P80: some node (of this machine alone, or of a ``cluster``) can give what a job asks for."""
    if nodes is None or room(resources, nodes):
        return
    where = "no node of the cluster can ever give that to a job; they have" if cluster else "this machine has"
    asked = list(_asked(resources, nodes))
    # Where each is met by some node, no node meets all of them.
    for part, has in [(part, has) for part, has, met in asked if not met] or [(part, has) for part, has, _ in asked]:
        yield Finding("P80", f"resources.{part}", f"{where} {has or 'none'}")


def _asked(resources: Resources, nodes: Sequence[Node]) -> Iterator[tuple[str, str, bool]]:
    """What a job asks for, what the nodes have of it, in words, and whether one of them has enough."""
    amounts = [("cpu", resources.cpu, [node.cpus for node in nodes])]
    if resources.gpu:
        amounts.append(("gpu", resources.gpu, [node.gpus for node in nodes]))
    if resources.memory_gib is not None:
        memory = [math.inf if node.memory is None else node.memory / GIB for node in nodes]
        amounts.append(("memory_gib", resources.memory_gib, memory))
    for name, amount in resources.custom.items():
        has = [math.inf if node.custom is None else node.custom.get(name, 0.0) for node in nodes]
        amounts.append((f"custom.{name}", amount, has))
    for name, amount, has in amounts:
        yield f"{name} = {amount:g}", _listed((f"{one:.4g}" for one in has), nodes), amount <= max(has, default=0.0)
    for name, label in resources.selector.items():
        labels = [{} if node.labels is None else node.labels for node in nodes]
        shown = (repr(one[name]) if name in one else "none" for one in labels)
        part = "accelerator" if name == ACCELERATOR_LABEL and resources.accelerator else f"labels.{name}"
        others = sorted({key for one in labels for key in one} - {name})
        more = f"; labels that they have: {', '.join(others)}" if others else ""
        met = any(node.labels is None or node.labels.get(name) == label for node in nodes)
        yield f"{part} = {label!r}", _listed(shown, nodes) + more, met


def _listed(values: Iterable[str], nodes: Iterable[Node]) -> str:
    """What each node has, with its name."""
    named = zip(values, nodes, strict=True)
    return ", ".join(f"{value} ({node.name})" if node.name else value for value, node in named)


def check_threads(resources: Resources, env: Env) -> Iterator[Finding]:
    """P80: the environment leaves each job its share of the cores."""
    if env.wait_policy.upper() == "ACTIVE":
        yield Finding(
            "P80",
            "OMP_WAIT_POLICY",
            "ACTIVE: threads that wait spin, and take from the jobs beside them; allowed is PASSIVE, or none",
            "warn",
        )
    if env.num_threads is not None and env.num_threads > resources.threads:
        yield Finding(
            "P80",
            "OMP_NUM_THREADS",
            f"{env.num_threads} is more than resources.cpu = {resources.cpu:g}: what is not torch starts that many "
            "threads in every job",
            "warn",
        )


def room(resources: Resources, nodes: Iterable[Node]) -> int:
    """How many jobs fit on the nodes at a time; one that asks for a share of a GPU gets it from one GPU."""
    return sum(_fitting(resources, node) for node in nodes)


def without(node: Node, resources: Resources, num: int) -> Node:
    """What is left of a node that so many jobs take these resources from."""
    memory = None if node.memory is None else node.memory - num * (resources.memory_gib or 0.0) * GIB
    custom = node.custom and {name: has - num * resources.custom.get(name, 0.0) for name, has in node.custom.items()}
    return replace(
        node, cpus=node.cpus - num * resources.cpu, gpus=node.gpus - num * resources.gpu, memory=memory, custom=custom
    )


def _fitting(resources: Resources, node: Node) -> int:
    if node.labels is not None and not resources.selector.items() <= node.labels.items():
        return 0
    times = [node.cpus / resources.cpu]
    if resources.memory_gib is not None and node.memory is not None:
        times.append(node.memory / (resources.memory_gib * GIB))
    if node.custom is not None:
        times += [node.custom.get(name, 0.0) / amount for name, amount in resources.custom.items()]
    fitting = max(0, int(min(times) + 1e-9))
    if not resources.gpu:
        return fitting
    whole, share = divmod(node.gpus + 1e-9, 1.0)  # others may have a part of a GPU
    return min(fitting, int(whole) * int(1 / resources.gpu + 1e-9) + int(share / resources.gpu + 1e-9))


def num_slots(resources: Resources, env: Env) -> int:
    """How many jobs run at a time, as far as is known; 1 at the least."""
    fitting = room(resources, env.nodes) if env.nodes else resources.slots or 1
    return max(1, min(fitting, resources.slots or fitting, env.slots or fitting))


def _weight(footprint: Footprint | None) -> int:
    return 0 if footprint is None else training_bytes(footprint, bf16=False)


def _uses_bf16(footprint: Footprint, env: Env) -> bool:
    if footprint.amp == "auto":
        return env.device == "cuda" and env.bf16 is not False
    return footprint.amp == "bf16"


def _precision(subject: Subject, footprint: Footprint | None, env: Env) -> Iterator[Finding]:
    """P10 to P13: the device's fast arithmetic is used, and what is used is there."""
    if footprint is None:
        return
    bf16, cuda = _uses_bf16(footprint, env), env.device == "cuda"
    if cuda and not bf16 and env.bf16 is not False:
        yield Finding(
            "P10",
            subject.part,
            "amp = 'off': float32 on a GPU that computes in bfloat16, at about twice the time and memory; "
            "allowed is 'auto' or 'bf16'",
        )
    if footprint.amp == "bf16" and env.bf16 is False:
        where = "this GPU" if cuda else "this processor"
        message = f"amp = 'bf16': {where} does not compute in bfloat16; allowed is 'auto' or 'off'"
        yield Finding("P11", subject.part, message, "refuse" if cuda else "warn")
    if cuda and footprint.attention != "none" and (footprint.attention == "math" or env.fused_attention is False):
        yield Finding("P12", subject.part, "attention without a fused kernel on a GPU; this torch or config has none")
    if footprint.attention == "flash" and not bf16:
        yield Finding("P13", subject.part, "flash attention in float32: it takes bfloat16; allowed is 'fused'")


def _memory(subject: Subject, footprint: Footprint | None, plan: Plan, env: Env) -> Iterator[Finding]:
    """P22: a job fits into its share of the memory, and into what is free of it."""
    if footprint is None or env.memory is None or env.free_memory is None:
        return
    need, share = job_bytes(footprint, env), _share(plan, env, env.memory)
    free = env.free_memory if env.device == "cuda" else _share(plan, env, env.free_memory)
    if need > min(share, free):
        yield Finding(
            "P22",
            subject.part,
            f"a job takes about {size(need)}; its share is {size(share)}, of which {size(min(share, free))} are free. "
            "Train smaller micro-batches (accumulation), or fewer jobs at a time (resources)",
        )


def _checkpointing(subject: Subject, footprint: Footprint | None, plan: Plan, env: Env) -> Iterator[Finding]:
    """P14: a long run of a large model computes activations again where its family can."""
    if footprint is None or footprint.checkpointing is not False or env.memory is None:
        return
    need, share = job_bytes(footprint, env), _share(plan, env, env.memory)
    if need > share / 2:
        yield Finding(
            "P14", subject.part, f"gradient checkpointing is off, and a job takes {size(need)} of {size(share)}"
        )


def job_bytes(footprint: Footprint, env: Env) -> int:
    """Memory that a job should have: its estimate with a margin."""
    return int(MARGIN * training_bytes(footprint, bf16=_uses_bf16(footprint, env), cpu=env.device == "cpu"))


def _share(plan: Plan, env: Env, memory: int) -> int:
    """A job's part of a device: of a GPU as the plan says, of a machine's memory as many as run at a time."""
    if env.device == "cuda":
        return int(memory * plan.resources.gpu)
    share = memory // num_slots(plan.resources, env)
    return share if plan.resources.memory_gib is None else min(share, int(plan.resources.memory_gib * GIB))


def _toy(subject: Subject, about: Preflight) -> Iterator[Finding]:
    """P30 and on: a model that no long run is worth."""
    if subject.preset in about.toys:
        yield Finding("P30", subject.part, f"preset {subject.preset!r} is a toy, and this is a long run")
    for name, (field, least) in about.least.items():
        value = getattr(subject.config, field)
        if value < least:
            yield Finding(name, subject.part, f"{field} = {value}: a long run is worth {least:g} at the least")
