"""The tables of a run: tidy, complete, and there for runs that are empty, lost, half-written, races or comparisons."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd
import pytest

import tune_rh
from analysis.diagnose.api import Finding, Plot, Series
from analysis.diagnose.findings import from_json, to_json
from analysis.stats.interval import Interval
from analysis.tables import RunTables
from tests.analysis.run_folders import simulate, write_run
from tests.worlds import records as on_disk
from tests.worlds.plans import plan
from tests.worlds.scripted import Simulation, curve
from tune_rh.errors import RunNotFound
from tune_rh.record import ranking
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths

CHECKOUT = Path(__file__).parents[2]
TABLES = ("members", "curves", "candidates", "decisions", "gates", "findings")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunPaths, History]:
    """A real run of the scripted family, with a loss in it."""
    paths = on_disk.make(tmp_path_factory.mktemp("runs") / "small", **on_disk.SMALL)
    return paths, on_disk.finish(paths)


def test_members_are_one_row_each_with_what_their_best_checkpoint_is_worth(
    searched: tuple[RunPaths, History],
) -> None:
    paths, history = searched
    table = tune_rh.load(paths.root).members.set_index("member")
    members = [m for c in history.candidates.values() for m in c.members.values()]
    assert sorted(table.index) == sorted(str(m.id) for m in members)
    for member in members:
        row = table.loc[str(member.id)]
        assert (row["candidate"], row["seed"], row["steps"]) == (member.id.candidate, member.id.seed, member.step)
        assert row["status"] == ("parked" if member.status == "idle" else member.status)
        assert row["best"] == pytest.approx(math.nan if member.value is None else member.curve.best, nan_ok=True)
        assert row["seconds"] == pytest.approx(member.slot_seconds)
        assert math.isnan(row["test_loss"]) == (member.tested is None)
        if member.tested is not None:
            assert row["test_loss"] == member.tested.metrics["test_loss"]
            assert row["val_loss"] == row["best"]
    assert set(table["status"]) >= {"completed", "diverged", "parked"}


def test_curves_have_every_evaluation_once_with_its_metrics_and_its_cost(
    searched: tuple[RunPaths, History],
) -> None:
    paths, history = searched
    table = tune_rh.load(paths.root).curves
    assert not table.duplicated(["member", "step"]).any()
    for candidate in history.candidates.values():
        for member in candidate.members.values():
            rows = table[table["member"] == str(member.id)]
            assert list(rows["step"]) == member.curve.steps
            assert list(rows["val_loss"].fillna(-1)) == [-1 if math.isnan(v) else v for v in member.curve.values]
    assert {"train_loss", "lr", "health"} <= set(table.columns)
    assert table["total_steps"].max() == history.steps_spent
    in_order = table.sort_values("total_steps")
    assert in_order["total_s"].is_monotonic_increasing


def test_candidates_stand_as_in_the_ranking(searched: tuple[RunPaths, History]) -> None:
    paths, history = searched
    table = tune_rh.load(paths.root).candidates.set_index("candidate")
    assert list(table.index) == list(history.candidates)
    for ranked in ranking.ranking(history):
        row = table.loc[ranked.candidate]
        assert row["score"] == pytest.approx(ranked.val)
        assert row["test_loss"] == pytest.approx(ranked.test)
        assert (row["num_seeds"], row["num_lost"]) == (ranked.num_seeds, ranked.num_lost)
        assert row["gate"] == 2
    assert list(table["control"]) == [True] + [False] * (len(table) - 1)
    drawn = table[table["origin"] == "sampler"]
    assert all("floor=" in label for label in drawn["label"])
    assert all(row["params"]["rate"] == row["config"]["rate"] for _, row in drawn.iterrows())


def test_a_maximised_objective_keeps_its_sign(tmp_path: Path) -> None:
    def rising(index: int, seed: int, step: int) -> dict[str, float]:
        return {"val_loss": -curve(index, seed, step)["val_loss"]}

    simulate(tmp_path / "up", rising, mode="max", num_candidates=3)
    simulate(tmp_path / "down", curve, num_candidates=3)
    up, down = tune_rh.load(tmp_path / "up"), tune_rh.load(tmp_path / "down")
    for table, column in (("members", "best"), ("candidates", "score"), ("gates", "score"), ("curves", "val_loss")):
        assert list(getattr(up, table)[column].dropna()) == list(-getattr(down, table)[column].dropna())
    assert list(up.candidates["rank"]) == list(down.candidates["rank"])


def test_the_gates_say_who_went_on_and_why(tmp_path: Path) -> None:
    history = simulate(tmp_path / "run", curve, num_candidates=9)
    table = tune_rh.load(tmp_path / "run").gates
    first = table[table["gate"] == 0]
    assert len(first) == 10
    others = first[~first["control"]]
    assert others["promoted"].sum() == history.gates[0].num_promoted
    assert list(others["rank"]) == list(range(9))
    assert others["score"].is_monotonic_increasing
    assert (others["reason"] != "").equals(others["promoted"])
    assert first[first["control"]]["rank"].isna().all()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_half_written_runs_have_all_their_tables(tmp_path: Path, share: float) -> None:
    of = plan(num_candidates=4)
    events = Simulation(of, curve, slots=2).run().events
    folder = write_run(tmp_path / "run", of, events[: int(share * len(events))])
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"event":"Repor')
    with pytest.warns(UserWarning, match="torn"):
        run = tune_rh.load(folder)
    columns = {name: list(getattr(run, name).columns) for name in TABLES}
    whole = tune_rh.load(write_run(tmp_path / "whole", of, events))
    for name in TABLES:
        kept = [c for c in whole_columns(whole, name) if c in columns[name]]
        assert columns[name] == kept
        assert getattr(run, name).shape[0] <= getattr(whole, name).shape[0]
    assert run.findings_table().empty
    assert "running" in repr(run) or not share


def whole_columns(run: RunTables, name: str) -> list[str]:
    return list(getattr(run, name).columns)


def test_a_run_that_lost_everybody_says_so(tmp_path: Path) -> None:
    fates = {(index, seed): ("diverge", 10) for index in range(4) for seed in (7, 42, 1337)}
    simulate(tmp_path / "run", curve, fates=fates, num_candidates=3)
    run = tune_rh.load(tmp_path / "run")
    assert set(run.members[run.members["steps"] > 0]["status"]) == {"diverged"}
    assert run.members["best"].isna().all()
    assert run.candidates["score"].isna().all()
    scored = run.candidates[run.candidates["num_seeds"] > 0]
    assert (scored["num_lost"] == scored["num_seeds"]).all()


def test_a_race_and_a_comparison_have_the_same_tables(tmp_path: Path) -> None:
    stages = [{"until_step": 20, "num_seeds": 3, "top": 2}, {"until_step": 60, "num_seeds": 3}]
    simulate(tmp_path / "race", curve, unit="member", num_candidates=0, stages=stages)
    race = tune_rh.load(tmp_path / "race")
    (config,) = race.candidates.to_dict("records")
    ended = race.members[race.members["status"] == "completed"]["best"]
    assert (config["score"], config["std"]) == pytest.approx((fmean(ended), stdev(ended)))
    assert config["num_seeds"] == 2
    assert set(race.decisions["seed"]) == set(race.gates[race.gates["promoted"]]["seed"])

    changes = {
        "presets": ["good"],
        "num_candidates": 1,
        "seeds": list(range(6)),
        "stages": [{"until_step": 20, "num_seeds": 6}],
        "compare": {},
    }
    paths = on_disk.make(tmp_path / "ab", **changes)
    on_disk.finish(paths)
    ab = tune_rh.load(paths.root)
    assert list(ab.candidates["control"]) == [True, False]
    assert ab.candidates["score"].iloc[1] < ab.candidates["score"].iloc[0]
    assert "comparison" in repr(ab)


def finding(name: str, verdict: str, value: float) -> Finding:
    values = {"increase": Interval(value, value - 1, value + 1), "count": 3.0}
    return Finding(name, verdict, "What it means.", values, {"increase": 0.5})  # type: ignore[arg-type]


def test_findings_lie_beside_each_other_over_seeds(tmp_path: Path) -> None:
    history = simulate(tmp_path / "run", curve, num_candidates=3)
    finishers = [row.candidate for row in ranking.ranking(history)][:2]
    for at, candidate in enumerate(finishers):
        for seed, value in ((7, 1.0), (42, 2.0 + at)):
            folder = tmp_path / "run" / "members" / f"{candidate}-s{seed}"
            folder.mkdir(parents=True)
            found = [
                finding("permutation", "pass" if value < 2 else "fail", value),
                Finding("readout", "no_evidence", "-"),
            ]
            (folder / "findings.json").write_text(to_json(found))
    (tmp_path / "run" / "report").mkdir()
    (tmp_path / "run" / "report" / "findings.json").write_text(to_json([finding("funnel", "warn", 9.0)]))
    run = tune_rh.load(tmp_path / "run")
    rows = run.findings
    one = rows[(rows["member"] == f"{finishers[0]}-s42") & (rows["name"] == "increase")].iloc[0]
    assert (one["candidate"], one["seed"], one["diagnostic"]) == (finishers[0], 42, "permutation")
    assert (one["value"], one["low"], one["high"], one["threshold"]) == (2.0, 1.0, 3.0, 0.5)
    assert rows[rows["diagnostic"] == "readout"]["verdict"].tolist() == ["no_evidence"] * 4
    assert rows[rows["member"] == ""]["diagnostic"].unique().tolist() == ["funnel"]
    table = run.findings_table()
    assert sorted(set(table.columns.get_level_values(0))) == sorted(finishers)
    second = table.loc[("permutation", "increase"), finishers[1]]
    assert (second["mean"], second["std"]) == pytest.approx((2.0, math.sqrt(2.0)))
    assert (second["num_seeds"], second["verdicts"]) == (2, "1 pass, 1 fail")
    assert table.loc[("readout", ""), finishers[0]]["verdicts"] == "2 no_evidence"
    assert "funnel" not in table.index.get_level_values(0)


def test_unreadable_findings_are_passed_over_with_a_warning(tmp_path: Path) -> None:
    simulate(tmp_path / "run", curve, num_candidates=1)
    folder = tmp_path / "run" / "members" / "c0000-s7"
    folder.mkdir(parents=True)
    (folder / "findings.json").write_text('{"schema": 99, "findings": []}')
    with pytest.warns(UserWarning, match="schema 99"):
        assert tune_rh.load(tmp_path / "run").findings.empty


def test_findings_survive_their_json() -> None:
    plot = Plot(
        "A title",
        "step",
        "nats",
        kind="heat",
        series=(Series("a", (0.0, 1.0), (math.inf, 2.0), (0.0, 0.5), (1.0, 3.0)),),
        grid=((1.0, 2.0), (3.0, 4.0)),
        lines={"threshold": 0.5},
        x_ticks=("one", "two"),
        log_y=True,
    )
    values = {"a": Interval(1.0, -math.inf, math.inf), "b": 2.0}
    whole = [Finding("x", "warn", "Words.", values, {"a": 0.5}, (plot,)), Finding("y", "no_evidence", "Nothing.")]
    assert from_json(to_json(whole, {"x": 1.5})) == whole
    text = to_json(
        [Finding("z", "fail", "Not a number.", {"a": Interval(math.nan, math.nan, math.nan), "b": math.nan})]
    )
    assert "NaN" not in text
    (back,) = from_json(text)
    estimate, plain = back.values["a"], back.values["b"]
    assert isinstance(estimate, Interval)
    assert isinstance(plain, float)
    assert math.isnan(estimate.low)
    assert math.isnan(plain)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 1, "findings": [{"name": "x"}]}'])
def test_what_is_no_findings_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not findings of this version"):
        from_json(text)


def test_a_name_is_looked_for_in_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(tmp_path / "runs" / "mine", curve, num_candidates=1)
    monkeypatch.chdir(tmp_path)
    assert tune_rh.load("mine").run.root.name == "mine"
    with pytest.raises(RunNotFound, match=r"'other': not found in .*/runs; there: mine"):
        tune_rh.load("other")


def test_reading_a_run_loads_nothing_heavy_and_tables_no_ray(searched: tuple[RunPaths, History]) -> None:
    code = """
import sys, tune_rh
run = tune_rh.load(sys.argv[1])
heavy = {"torch", "ray", "optuna", "pandas", "numpy"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
tables = [run.members, run.curves, run.candidates, run.decisions, run.gates, run.findings, run.findings_table()]
assert not {"ray", "torch"} & set(sys.modules)
"""
    words = [sys.executable, "-c", code, str(searched[0].root)]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tables_are_made_once(searched: tuple[RunPaths, History]) -> None:
    run = tune_rh.load(searched[0].root)
    assert run.members is run.members
    assert isinstance(run.members, pd.DataFrame)
    assert run.provenance["python"]
    assert run.plan["objective"] == "val_loss"
