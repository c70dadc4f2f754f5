"""What a search takes along from earlier runs, and from which it takes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.worlds.family import SPACE
from tests.worlds.plans import plan
from tests.worlds.records import SMALL, finish, make
from tune_rh.cli.main import main
from tune_rh.decide.samplers import sampler_of
from tune_rh.errors import PlanError
from tune_rh.plan.kinds import Search
from tune_rh.plan.schema import Plan
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.results.earlier import in_words, learn_from
from tune_rh.results.reading import Reading, read
from tune_rh.run import runs

WIDE: dict[str, Any] = {**SMALL, "num_candidates": 14, "presets": [], "eta": 1.5}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    paths = make(tmp_path_factory.mktemp("runs") / "earlier", **WIDE)
    finish(paths)
    return paths


def learnt(paths: RunPaths, **changes: Any) -> Search:
    return learn_from(plan(**{**WIDE, "gates": "adaptive", **changes}), [read(paths)])


def test_gates_and_observations_are_taken_along(earlier: RunPaths) -> None:
    history = read(earlier).history
    found = learnt(earlier).earlier
    assert found is not None
    assert found.runs == ("earlier",)
    assert [(g.until_step, g.to_step, g.num_seeds, g.to_seeds) for g in found.gates] == [(20, 40, 1, 2), (40, 60, 2, 2)]
    assert all(gate.pairs >= 4 and gate.seed_df > 0 for gate in found.gates)
    finished = {c.index for c in history.candidates.values() if c.index and c.stage == 2 and c.added.params}
    assert len(found.observations) == len(finished)
    assert {seen.score for seen in found.observations} == {history.gates[2].score(index) for index in finished}
    assert "Learnt from earlier: how long ranks lasted at 2 gates, and " in in_words(found)


def test_a_gate_starts_from_what_was_seen_at_the_same_gate(earlier: RunPaths) -> None:
    taught, untaught = learnt(earlier), plan(**{**WIDE, "gates": "adaptive"})
    assert taught.earlier is not None
    for k, seen in enumerate(taught.earlier.gates):
        start, usual = taught.gate(k).learning, untaught.gate(k).learning
        assert start is not None
        assert usual is not None
        assert start.weight == usual.weight + min(seen.pairs, 12)
        low, high = sorted([usual.prior, seen.agreement])
        assert low <= start.prior <= high
    moved = learnt(earlier, stages=[{**WIDE["stages"][0], "until_step": 30}, *WIDE["stages"][1:]])
    assert moved.gate(0).learning == untaught.model_copy(update={"stages": moved.stages}).gate(0).learning
    assert History(taught).gates[0].learnt is not None


def test_the_sampler_begins_with_what_was_observed(earlier: RunPaths) -> None:
    """With as many observations as it draws at random, TPE models from the first draw on."""
    taught = learnt(earlier, sampler={"startup": 2, "seed": 3})
    untaught = taught.model_copy(update={"earlier": None})
    draws = [sampler_of(p.sampler).draw(SPACE, History(p)) for p in (taught, untaught, taught)]
    assert draws[0] == draws[2]
    assert draws[0] != draws[1]


def test_other_data_give_ranks_alone(earlier: RunPaths) -> None:
    found = learnt(earlier, fixed={"noise": 0.5}).earlier
    assert found is not None
    assert found.observations == ()
    assert [gate.seed_df for gate in found.gates] == [0, 0]
    assert "no config (other fixed fields or last step)" in in_words(found)
    longer = learnt(earlier, stages=[*WIDE["stages"][:2], {"until_step": 90, "num_seeds": 2}]).earlier
    assert longer is not None
    assert longer.observations == ()


def test_it_is_part_of_the_plan_and_of_its_fingerprint(earlier: RunPaths, tmp_path: Path) -> None:
    taught = learnt(earlier, name="taught")
    untaught = plan(**{**WIDE, "gates": "adaptive", "name": "taught"})
    assert taught.fingerprint() != untaught.fingerprint()
    paths = runs.create(taught, tmp_path / "taught", tmp_path)
    again, history = runs.replay(paths)
    assert again == taught
    assert isinstance(history.plan, Search)
    assert history.plan.earlier == taught.earlier


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "other"}, r"--learn-from earlier: its space is 'tests.worlds.family:SPACE', and that of scripted"),
        ({"family": "spacing_mdn"}, r"--learn-from earlier: its family is 'tests.worlds.family:FAMILY'"),
    ],
)
def test_another_family_or_space_is_refused_by_name(earlier: RunPaths, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        learn_from(plan(**WIDE).model_copy(update=changes), [read(earlier)])


def test_races_neither_learn_nor_teach(earlier: RunPaths) -> None:
    stages = [{"until_step": 20, "num_seeds": 2, "top": 1}, {"until_step": 60, "num_seeds": 2}]
    race: Plan = plan(unit="member", num_candidates=0, seeds=[7, 42], stages=stages)
    with pytest.raises(PlanError, match="scripted is a race, and only a search learns"):
        learn_from(race, [read(earlier)])
    with pytest.raises(PlanError, match=r"--learn-from raced: is a race, and a search learns only from searches"):
        learn_from(plan(**WIDE), [Reading(RunPaths(Path("raced")), History(race), False, {})])


def test_the_command_says_what_it_takes_along(earlier: RunPaths, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--runs-dir", str(earlier.root.parent), "--data-dir", str(earlier.root.parent)]
    assert main(["search", "quickstart", "--learn-from", "earlier", "--dry-run", *places]) == 2
    assert "--learn-from earlier: its family is 'tests.worlds.family:FAMILY'" in capsys.readouterr().err
