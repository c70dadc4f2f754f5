"""Searches over the models of a family that are killed with kill -9 and resumed end as one that nobody disturbed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.worlds import driver
from tests.worlds.plans import plan
from tests.worlds.records import events, of
from trainables.worker.checkpoint import load_latest
from tune_rh.plan.schema import Plan
from tune_rh.record.events import Evaluated, Tested
from tune_rh.record.journal import RunPaths
from tune_rh.run import runs


def search_of(family: str, *, candidate: dict[str, Any], reference: dict[str, Any], steps: tuple[int, int]) -> Plan:
    """The preset ``tiny`` as the control, one candidate and one reference with other fields, two stages."""
    return plan(
        family=family,
        space="",
        control="tiny",
        presets=["other"],
        references=["beside"],
        configs={
            "other": {"preset": "tiny", "fields": candidate},
            "beside": {"preset": "tiny", "fields": reference},
        },
        num_candidates=1,
        seeds=[7, 42],
        eval_every=2,
        save_every=2,
        stages=[{"until_step": steps[0], "num_seeds": 1}, {"until_step": steps[1], "num_seeds": 2}],
        diagnose=[],
    )


def check_a_killed_search_ends_as_one_that_was_not(
    searched: Plan, folder: Path, data_dir: Path, kill_after: Iterable[int]
) -> None:
    """What was measured and the weights of every member are bit for bit those of a search that ran through.

    Args:
        searched: the plan.
        folder: where both runs lie.
        data_dir: where the family's data set lies.
        kill_after: of each session that is killed, the number of its events until then.
    """
    whole, killed = (runs.create(searched, folder / name, data_dir) for name in ("whole", "killed"))
    driver.main(whole.root, data_dir, 0)
    for num in kill_after:
        driver.killed(killed.root, data_dir, num)
    driver.main(killed.root, data_dir, 0)
    assert _measured(killed) == _measured(whole)
    assert len(events(killed)) > len(events(whole))
    for member in sorted((whole.root / "members").iterdir()):
        one, other = (load_latest(paths.root / "members" / member.name / "checkpoints") for paths in (whole, killed))
        assert one is not None
        assert other is not None
        for name, weights in one[0]["model"].items():
            assert weights.equal(other[0]["model"][name]), (member.name, name)


def _measured(paths: RunPaths) -> dict[tuple[Any, ...], dict[str, float]]:
    """What was reported of each member at each step, and of the test split, without rates."""
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    for event in of(paths, Evaluated, Tested):
        metrics = {name: value for name, value in event.metrics.items() if name != "tokens_per_s"}
        assert found.setdefault((type(event), event.member, event.step), metrics) == metrics
    return found
