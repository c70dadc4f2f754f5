"""The run's Optuna study on disk (``study.db``): what dashboards and importance analysis read. A mirror of the history.

It follows the journal and never leads: `StudyMirror.sync` adds what is missing, so a lost or half-written file is
made whole again. A trial is RUNNING while its candidate may still go on, with the score over seeds at each gate as
an intermediate value; COMPLETE after the last stage, PRUNED when the search ended before, FAIL if all seeds were lost.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import warnings
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from trainables.spelling import meant
from tune_rh.decide.samplers import intermediate_values, parse_distributions
from tune_rh.record.events import CandidateAdded, Event, JobEnded, Promoted, SeedAdded, SessionEnded
from tune_rh.record.history import History
from tune_rh.record.members import Candidate

_LOCK_WAIT_S = 5.0


class StudyMirror:
    """Keeps ``study.db`` equal to the history; a watcher of `tune_rh.run.session.Session`."""

    def __init__(self, path: Path, name: str, history: History) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._path, self._name, self._history = path, name, history
        try:
            self._open()
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if not _is_damaged(error):
                raise
            self._make_again("damaged")
        if not all(map(self._is_of_history, self._trials)):
            self._make_again("outdated")
        self.sync(finished=history.ended == "finished")

    def _make_again(self, why: str) -> None:
        """Set the file aside for another one that is made from the history."""
        aside = self._path.with_name(f"{why}-{self._path.name}")
        os.replace(self._path, aside)
        for unfinished in ("-journal", "-wal", "-shm"):  # these belong to the file that went
            self._path.with_name(self._path.name + unfinished).unlink(missing_ok=True)
        if why == "damaged":
            warnings.warn(
                f"{self._path}: is damaged; it is made again from the journal ({aside.name}: as it was)", stacklevel=3
            )
        self._open()

    def _open(self) -> None:
        path, name, history = self._path, self._name, self._history
        self._study = optuna.create_study(
            study_name=name,
            storage=_storage(path),
            direction="minimize" if history.plan.mode == "min" else "maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),
            load_if_exists=True,
        )
        self._trials: dict[str, Trial] = {}
        self._reported: dict[str, set[int]] = {}
        self._settled: set[str] = set()
        for frozen in self._study.get_trials(deepcopy=False):
            candidate = frozen.user_attrs.get("candidate")
            if candidate is None:
                continue
            self._trials[candidate] = Trial(self._study, frozen._trial_id)
            self._reported[candidate] = set(frozen.intermediate_values)
            if frozen.state.is_finished():
                self._settled.add(candidate)

    def _is_of_history(self, name: str) -> bool:
        """Whether the file says nothing of a candidate that the journal does not, which may have lost lines."""
        candidate = self._history.candidates.get(name)
        if candidate is None or meant(candidate.added.params) != self._trials[name].params:
            return False
        return self._reported[name] <= intermediate_values(candidate, self._history).keys()

    def __call__(self, event: Event) -> None:
        """Bring up to date what ``event`` has changed."""
        match event:
            case CandidateAdded() | Promoted() | SeedAdded():
                self.update(self._history.candidates[event.candidate])
            case JobEnded():
                self.update(self._history.candidates[event.member.candidate])
            case SessionEnded():
                self.sync(finished=event.reason == "finished")

    def sync(self, *, finished: bool = False) -> None:
        """Bring every candidate up to date; with ``finished``, those that wait will not go on."""
        for candidate in self._history.candidates.values():
            self.update(candidate, finished=finished)

    def update(self, candidate: Candidate, *, finished: bool = False) -> None:
        """Bring one candidate up to date."""
        history = self._history
        values = intermediate_values(candidate, history)
        if candidate.id in self._settled:
            if values.keys() > self._reported[candidate.id]:  # it goes on after all, in a run that was extended
                self._make_again("outdated")
                self.sync(finished=finished)
            return
        trial = self._trials.get(candidate.id) or self._add(candidate)
        for step, value in values.items():
            if step not in self._reported[candidate.id]:
                trial.report(history.shown(value), step)
                self._reported[candidate.id].add(step)
        last_step = history.plan.stages[-1].until_step
        if candidate.members and all(m.lost for m in candidate.members.values()):
            self._settle(candidate, TrialState.FAIL, None)
        elif last_step in values and (finished or history.gates[-1].has(candidate.index)):
            # Where further seeds follow at the last step, the score is whole once they are in, or will not come.
            self._settle(candidate, TrialState.COMPLETE, history.shown(values[last_step]))
        elif finished:
            self._settle(candidate, TrialState.PRUNED if values else TrialState.FAIL, None)

    def _add(self, candidate: Candidate) -> Trial:
        added = candidate.added
        # One template, not enqueue, ask and attributes one by one: each is a transaction that slots wait for.
        running = create_trial(
            state=TrialState.RUNNING,
            params=meant(added.params),
            distributions=parse_distributions(added.distributions),
            user_attrs={"candidate": candidate.id, "origin": added.label or added.origin},
        )
        trial_id = self._study._storage.create_new_trial(self._study._study_id, template_trial=running)
        trial = self._trials[candidate.id] = Trial(self._study, trial_id)
        self._reported[candidate.id] = set()
        return trial

    def _settle(self, candidate: Candidate, state: TrialState, value: float | None) -> None:
        self._study.tell(self._trials[candidate.id].number, value, state=state)
        self._settled.add(candidate.id)


def _storage(path: Path) -> optuna.storages.RDBStorage:
    """The database at ``path``, which is opened as a file: in an URL some characters of a path mean something else."""
    connect = partial(sqlite3.connect, path, timeout=_LOCK_WAIT_S, check_same_thread=False)
    return optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})


def _is_damaged(error: BaseException | None) -> bool:
    """Whether the file itself is bad. A locked file, say, is an OperationalError, and will be well again."""
    while error is not None:
        if type(error) is sqlite3.DatabaseError:
            return True
        error = error.__cause__
    return False
