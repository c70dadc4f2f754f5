"""Advice from a run's own curves: what it says of gates, of steps and of seeds, and of which runs it says nothing."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.plans import plan
from tests.worlds.records import SMALL, finish, make
from tests.worlds.scripted import Metrics, Simulation
from tune_rh.cli.main import main
from tune_rh.errors import RunError
from tune_rh.record.journal import RunPaths
from tune_rh.results.advice import advise
from tune_rh.results.reading import Reading

STAGES = [{"until_step": 20, "num_seeds": 2}, {"until_step": 60, "num_seeds": 2}, {"until_step": 120, "num_seeds": 3}]


def advice(metrics: Metrics, **changes: Any) -> list[str]:
    sim = Simulation(plan(**{"num_candidates": 30, "stages": STAGES, "eta": 2.0, **changes}), metrics).run()
    sim.session.close("finished")
    return advise(Reading(RunPaths(Path("nowhere")), sim.history, False, {}))


def levels(last: bool, noise: float) -> Metrics:
    """Candidates whose order stays, or is drawn anew after step 60; seeds of their own."""

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        level = random.Random(f"{index} {last or step <= 60}").random() - step / 10
        return {"val_loss": level + noise * random.Random(f"{index} {seed}").gauss(0, 1), "health": 1.0}

    return metrics


def test_where_ranks_last_fewer_should_have_gone_on_and_one_seed_would_have_done() -> None:
    first, second, steps, *seeds = advice(levels(last=True, noise=0.01))
    assert first.startswith("Gate 1 (step 20, 2 seeds): ranks agree by 0.9")
    found = re.search(r"It let (\d+) of 30 through; for the same steps (\d+) would have been best", first)
    assert found is not None
    assert int(found[2]) < int(found[1])
    assert second.startswith("Gate 2 (step 60, 2 seeds): ranks agree by 0.9")
    assert "stood at step 10 of 120 much as there" in steps
    assert seeds
    assert all("One seed would have done" in text for text in seeds)


def test_where_ranks_are_drawn_anew_it_says_so() -> None:
    first, second, steps, *_ = advice(levels(last=False, noise=0.01))
    assert first.startswith("Gate 1 (step 20, 2 seeds): ranks agree by 0.9")
    found = re.search(r"ranks agree by (-?[\d.]+) ", second)
    assert found is not None
    assert float(found[1]) < 0.8
    assert "stood at step 70 of 120 much as there" in steps or "stood nowhere before it" in steps


def test_where_seeds_are_all_there_is_it_says_so() -> None:
    said = advice(levels(last=True, noise=9.0))
    assert any("A choice made there needs more seeds" in text for text in said)
    assert not any("One seed would have done" in text for text in said)


def test_few_candidates_say_nothing() -> None:
    first, second, steps, *_ = advice(levels(last=True, noise=0.1), num_candidates=2)
    assert "were scored here and at the next gate; it takes 4" in first
    assert "it takes 4" in second
    assert "too few to say" in steps


def test_the_command_prints_it_and_a_race_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(make(tmp_path / "run", **SMALL))
    assert main(["advise", "run", "--runs-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("Gate 1 (step 20, 1 seed): ")
    stages = [{"until_step": 20, "num_seeds": 2, "top": 1}, {"until_step": 60, "num_seeds": 2}]
    race = Simulation(
        plan(unit="member", num_candidates=0, seeds=[7, 42], stages=stages), levels(last=True, noise=0.1)
    ).run()
    with pytest.raises(RunError, match="scripted is a race: advice is about the gates and seeds of a search"):
        advise(Reading(RunPaths(Path("nowhere")), race.history, False, {}))
