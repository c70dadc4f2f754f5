"""Peers on a tiny table: each keeps the protocol, draws as it should, and hands over what its own rule says."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks import peers
from tests.simulation.test_simulate import table
from trainables.worker.report import Evaluated, MemberId, Report
from tune_rh.decide.scheduler import Finish, RunMember, Wait
from tune_rh.simulation.clock import Clock, Conditions, Trace
from tune_rh.simulation.curve_table import CurveTable

NUM, SEEDS = 12, 2


class Watched:
    """A peer whose trials are noted, with all that was reported of each."""

    def __init__(self, peer: peers.Peer) -> None:
        self.peer = peer
        self.places: list[tuple[int, int]] = []
        self.jobs: list[RunMember] = []
        self.told: dict[int, list[float]] = {}
        self.finished = False

    def next_job(self, prefer: MemberId | None = None) -> RunMember | Wait | Finish:
        job = self.peer.next_job(prefer)
        self.finished = isinstance(job, Finish)
        if isinstance(job, RunMember):
            self.jobs.append(job)
            if int(job.member.candidate) == len(self.places):
                self.places.append(self.peer.place(job.member))
        return job

    def on_report(self, report: Report) -> bool:
        assert isinstance(report, Evaluated)
        self.told.setdefault(int(report.member.candidate), []).append(report.metrics["loss"])
        return self.peer.on_report(report)

    def on_failure(self, member: MemberId, error: str) -> None:
        self.peer.on_failure(member, error)

    def place(self, member: MemberId) -> tuple[int, int]:
        return self.peer.place(member)

    def incumbent(self) -> int | None:
        return self.peer.incumbent()


def bare(curves: CurveTable) -> CurveTable:
    """The same without hyperparameters."""
    empty: tuple[dict[str, Any], ...] = tuple({} for _ in curves.configs)
    return CurveTable(curves.name, curves.objective, curves.mode, "", empty, curves.labels, curves.curves)


def run(name: str, curves: CurveTable, conditions: Conditions, seed: int = 0) -> tuple[Watched, Trace]:
    watched = Watched(peers.make(name, curves, 10, 120, seed))
    return watched, Clock(curves, 10, [120], conditions, seed).run(watched, watched)


@pytest.mark.parametrize("name", peers.available())
@pytest.mark.parametrize("with_parameters", [True, False])
def test_a_peer_tries_every_config_and_then_other_seeds_and_ends(name: str, with_parameters: bool) -> None:
    curves = table(NUM, SEEDS) if with_parameters else bare(table(NUM, SEEDS))
    watched, trace = run(name, curves, Conditions(workers=3))
    first, second = watched.places[:NUM], watched.places[NUM:]
    assert {config for config, _ in first} == {config for config, _ in second} == set(range(NUM))
    assert len(set(watched.places)) == NUM * SEEDS
    assert watched.finished
    assert trace.busy.max() == 3
    assert np.isfinite(trace.regret).all()
    assert watched.incumbent() in {config for config, _ in watched.places}


@pytest.mark.parametrize("name", peers.available())
def test_failures_and_a_seed_give_the_same_search_twice(name: str) -> None:
    rough = Conditions(workers=3, failures=0.1, max_failures=0, stragglers=0.3, max_steps=1500)
    (one, first), (two, again) = run(name, table(NUM, SEEDS), rough, 4), run(name, table(NUM, SEEDS), rough, 4)
    assert one.places == two.places
    np.testing.assert_array_equal(first.regret, again.regret)


@pytest.mark.parametrize("name", [name for name in peers.available() if name != "random search"])
def test_bad_trials_are_stopped_and_the_best_is_not(name: str) -> None:
    watched, trace = run(name, bare(table(NUM, 1, noise=0.0)), Conditions(workers=1))
    lengths = {watched.places[trial][0]: len(values) for trial, values in watched.told.items()}
    best = int(np.argmin(table(NUM, 1, noise=0.0).truth))
    assert lengths[best] == 12
    assert min(lengths.values()) < 12
    assert trace.regret[-1] == 0


def test_random_search_hands_over_the_best_mean() -> None:
    watched, trace = run("random search", table(NUM, SEEDS, noise=0.3), Conditions(workers=2))
    last: dict[int, list[float]] = {}
    for trial, (config, _) in enumerate(watched.places):
        assert len(watched.told[trial]) == 12
        last.setdefault(config, []).append(watched.told[trial][-1])
    assert watched.incumbent() == min(last, key=lambda config: fmean(last[config]))
    assert trace.steps[-1] == NUM * SEEDS * 120


def test_ray_hands_over_the_best_last_result_and_syne_tune_the_best_of_all() -> None:
    names = [name for name in ("Ray Tune ASHA", "Syne Tune ASHA") if name in peers.available()]
    for name in names:
        watched, _ = run(name, table(NUM, SEEDS, noise=0.3), Conditions(workers=2))
        rule = min if name == "Syne Tune ASHA" else (lambda values: values[-1])
        best = min(watched.told, key=lambda trial: rule(watched.told[trial]))
        assert watched.incumbent() == watched.places[best][0]


@pytest.mark.parametrize("name", [name for name in peers.SETTINGS if name.startswith("Optuna")])
def test_optuna_hands_over_its_best_trial_and_learns_of_what_ran(name: str) -> None:
    curves = table(NUM, SEEDS)
    watched, _ = run(name, curves, Conditions(workers=2))
    assert isinstance(watched.peer, peers.Optuna)
    study = watched.peer.study
    assert [t.params for t in study.trials] == [curves.configs[config] for config, _ in watched.places]
    assert watched.incumbent() == watched.places[study.best_trial.number][0]
    states = {t.state for t in study.trials}
    assert states == {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}


@pytest.mark.parametrize("name", [name for name in peers.available() if name.startswith("NePS")])
def test_neps_trials_pause_at_rungs_and_the_best_result_of_any_length_is_handed_over(name: str) -> None:
    watched, _ = run(name, bare(table(NUM, SEEDS, noise=0.3)), Conditions(workers=1))
    assert {job.until_step for job in watched.jobs} == {20, 40, 120}
    best = {trial: min(values[i] for i in (1, 3, 11) if i < len(values)) for trial, values in watched.told.items()}
    assert watched.incumbent() == watched.places[min(best, key=lambda trial: best[trial])][0]


@pytest.mark.parametrize("name", [name for name in peers.available() if name.startswith("NePS")])
def test_neps_leaves_the_generators_that_all_share_as_they_were(name: str) -> None:
    torch = pytest.importorskip("torch")
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = np.random.random(), torch.rand(1).item()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    run(name, table(NUM, SEEDS), Conditions(workers=2))
    assert (np.random.random(), torch.rand(1).item()) == before  # noqa: NPY002


def test_an_unknown_peer_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"peer 'hyperopt': known: random search, Ray Tune ASHA, Syne Tune"):
        peers.make("hyperopt", table(), 10, 120)
