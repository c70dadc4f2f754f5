"""An exported folder of any family: presets ``tiny`` and a quicker one, hardly trained."""

from __future__ import annotations

from pathlib import Path

from tests.worlds.plans import fields
from tune_rh.plan.file import resolve_plan
from tune_rh.results.export import export
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.runner import start_session


def exported(family: str, root: Path, data_dir: Path, *, seeds: tuple[int, ...], until_step: int) -> Path:
    """What `tune-rh export` leaves of a search below ``root``; the data set is there."""
    plan = resolve_plan(
        fields(
            family=family,
            space="",
            control="tiny",
            presets=["quick"],
            configs={"quick": {"preset": "tiny", "fields": {"lr": 0.01}}},
            num_candidates=1,
            seeds=[*seeds],
            eval_every=2,
            stages=[{"until_step": until_step, "num_seeds": len(seeds)}],
            diagnose=[],
        )
    )
    paths = runs.create(plan, root / "run", data_dir)
    run = runs.open_run(paths, data_dir)
    search = start_session(run, runner="local", slots=1)
    LocalRunner(run).run(search)
    search.close("finished")
    export(paths, run.history, root / "best", companions=runs.companions(plan, data_dir))
    return root / "best"
