"""Run folders of a family that trains by hand: real configs, curves in closed form, no model and no training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.view import Run
from tests.analysis.run_folders import read_run, write_run
from tests.worlds.plans import plan
from tests.worlds.scripted import Fate, Simulation
from trainables.registry import build_config, get_family
from tune_rh.plan.schema import Plan
from tune_rh.record.events import CandidateAdded, Evaluated, Event, RunCreated, SessionEnded
from tune_rh.record.journal import JOURNAL_SCHEMA

CONTROL = "cpu-tiny"
"""The preset of every control."""
SEEDS = (7, 42, 1337)
Metrics = Callable[[str, int, int], dict[str, float]]


def family_plan(family: str, configs: Mapping[str, Mapping[str, Any]], **changes: Any) -> Plan:
    """A search of the control and ``configs`` (fields over the control's, by label) in one stage of 3 seeds."""
    fields: dict[str, Any] = {
        "family": family,
        "space": "",
        "control": CONTROL,
        "presets": list(configs),
        "configs": {label: {"preset": CONTROL, "fields": dict(fields)} for label, fields in configs.items()},
        "num_candidates": len(configs),
        "seeds": list(SEEDS),
        "stages": [{"until_step": 100, "num_seeds": len(SEEDS)}],
    }
    return plan(**{**fields, **changes})


def family_run(
    folder: Path,
    family: str,
    configs: Mapping[str, Mapping[str, Any]],
    metrics: Metrics,
    *,
    fates: Mapping[tuple[int, int], Fate] | None = None,
    step_s: Mapping[str, float] | None = None,
    **changes: Any,
) -> Run:
    """Run it to the end and read it.

    Args:
        folder: of the run.
        family, configs, changes: see `family_plan`.
        metrics: (label, seed, step) -> what is reported.
        fates: by (index, seed), the control is 0.
        step_s: seconds of training a step by label; 0.1 where there is none.
    """
    of = family_plan(family, configs, **changes)
    labels = [CONTROL, *configs]
    done = Simulation(of, lambda index, seed, step: metrics(labels[index], seed, step), fates=fates, slots=2).run()
    made = RunCreated(of.fingerprint(), "digest", JOURNAL_SCHEMA, "config")
    events = [made, *_real(done.events, labels, of, step_s or {}), SessionEnded(1, 0.0, "finished")]
    return read_run(write_run(folder, of, events))


def _real(events: Sequence[Event], labels: Sequence[str], of: Plan, step_s: Mapping[str, float]) -> Iterator[Event]:
    family = get_family(of.family)
    for event in events:
        if isinstance(event, CandidateAdded):
            label = labels[int(event.candidate[1:])]
            fields = of.configs[label].fields if label in of.configs else {}
            config = build_config(family, fields, preset=CONTROL)
            origin = "preset" if label in of.configs else "control"
            yield replace(
                event, config=config.model_dump(mode="json"), config_digest=config.digest(), origin=origin, label=label
            )
        elif isinstance(event, Evaluated):
            label = labels[int(event.member.candidate[1:])]
            yield replace(event, train_s=of.eval_every * step_s.get(label, 0.1))
        else:
            yield event
