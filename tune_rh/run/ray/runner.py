"""Runs jobs on Ray Tune: a `Searcher` that hands jobs out and a `TrialScheduler` that obeys the policy's verdicts.

Tune places trials and reuses actors. It decides nothing and remembers nothing that a resume needs: its own ASHA, its
PAUSED state and its restore keep rungs in memory and lose them with the driver (``docs/decisions/0001``). One Ray trial
is one try of a job; a member that goes on at once keeps its trial and its actor.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ray import tune
from ray.tune import TuneError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from trainables.worker.job import MemberJob
from trainables.worker.report import REPORTS
from tune_rh.decide.scheduler import Finish, Wait
from tune_rh.errors import RunError
from tune_rh.preflight.checks import room
from tune_rh.run.ray.admit.admission import Admission
from tune_rh.run.ray.bridge import Bridge
from tune_rh.run.ray.gauges import Gauges
from tune_rh.run.ray.losses import loss_of, node_of
from tune_rh.run.ray.nodes import Census, ClusterNode, survey
from tune_rh.run.ray.trainable import trainable
from tune_rh.run.ray.warm_up import WarmUp
from tune_rh.run.runs import OpenRun
from tune_rh.run.session import Loss, Session

# Tune reads these when it starts: our own records replace its loggers and snapshots, and our signals its handler.
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # As many pending trials as there are slots: with fewer, the first actor that is up takes every trial.
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
}

_LOOK_EVERY_S, _NO_NODE_S = 1.0, 60.0


class RayRunner:
    """Jobs as Ray Tune trials, on the cluster that is connected (`tune_rh.run.ray.cluster`)."""

    name = "ray"

    def __init__(
        self,
        run: OpenRun,
        slots: int,
        census: Census | None = None,
        *,
        admission: Admission | None = None,
        metrics: bool = True,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        """``census`` follows the nodes, ``admission`` those that join; without a census ``slots`` stands."""
        self._run, self._census, self._admission, self._say = run, census, admission, say
        self.slots = slots
        self._metrics = metrics

    def run(self, session: Session) -> None:
        """See `tune_rh.run.runner.Runner`."""
        os.environ.update(_TUNE_ENVIRONMENT)
        if self._metrics:
            session.listeners.append(Gauges(session, self._run.paths))
        bridge = Bridge(self._run, session, WarmUp(self.slots, self._say), self._census)
        watch = NodeWatch(bridge, self._census, admission=self._admission)
        tuner = tune.Tuner(
            trainable(session.plan.resources),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=JobSearcher(bridge, watch),
                scheduler=VerdictScheduler(bridge),
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_folder,
            ),
            run_config=tune.RunConfig(
                name=f"session-{session.history.session}",
                storage_path=str(self._run.paths.ray),
                # A try of a job is a trial: Tune counts losses of all causes in one, and would try under the old lease.
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
                callbacks=[_OwnSignal(), watch],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except _StoppedEarly:
            return
        except TuneError:
            if bridge.error is None:
                raise
        if bridge.error is not None:
            raise bridge.error
        if not (bridge.is_over or session.stopping):
            raise RunError(f"{session.plan.name}: Ray Tune ended before the search did; resume the run")


class _OwnSignal(tune.Callback):
    """Takes SIGUSR1 back from Tune, which leaves its loop for it as if all were done, and saves no member."""

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGUSR1)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ) -> None:
        """Called by Tune once its own handlers are there."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._handler)


class NoNodeLeft(RunError):
    """No node on which a job could run is left."""


class _StoppedEarly(Exception):
    """The session is to stop, and no job has begun: nobody waits for workers that are still starting."""


class NodeWatch(tune.Callback):
    """Follows the cluster: slots follow its nodes, and members leave those that are about to be taken away.

    Where no node that could run a job is alive for a minute the session ends: Tune would wait for one for ever. Without
    a ``census`` an autoscaler may bring one.
    """

    def __init__(
        self,
        bridge: Bridge,
        census: Census | None,
        survey: Callable[[], Collection[ClusterNode]] = survey,
        admission: Admission | None = None,
    ) -> None:
        self._bridge, self._census, self._survey, self._admission = bridge, census, survey, admission
        self._next_s, self._alone_since = 0.0, math.inf

    def __getstate__(self) -> dict[str, Any]:
        return {}

    @property
    def kept_out(self) -> list[str]:
        """The ids of nodes on which no job may be placed."""
        return self._admission.kept_out if self._admission else []

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called by Tune ten times a second, but not while it waits for a first trial."""
        self.look(trials)
        if isinstance(self._bridge.error, NoNodeLeft):
            raise self._bridge.error
        if self._bridge.session.stopping and not (self._bridge.warm_up.is_over or self._bridge.jobs):
            raise _StoppedEarly

    def look(self, trials: Iterable[Trial] = ()) -> None:
        """Look at the nodes, unless that was a moment ago."""
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + _LOOK_EVERY_S
        nodes = self._survey()
        leaving = {node.id for node in nodes if node.leaving}
        for trial in trials if leaving else ():
            if trial.status == Trial.RUNNING and node_of(trial) in leaving:
                self._bridge.hand_over(trial.trial_id)
        if self._census is None:
            return
        if self._admission is not None:
            nodes = self._admission.pass_on(nodes)
        self._bridge.on_nodes(self._census.look(nodes))
        usable = [node.capacity for node in nodes if node.id not in self.kept_out]
        has_room = room(self._bridge.session.plan.resources, usable)
        self._alone_since = math.inf if has_room else min(self._alone_since, now)
        if now - self._alone_since >= _NO_NODE_S:
            self._bridge.error = NoNodeLeft(
                f"{self._bridge.session.plan.name}: no node of the Ray cluster on which a job could run is alive for "
                f"{now - self._alone_since:.0f} s; nothing saved is lost. Resume the run on another cluster"
            )


class JobSearcher(Searcher):
    """Hands out jobs: a config, None (nothing now) or FINISHED."""

    def __init__(self, bridge: Bridge, watch: NodeWatch) -> None:
        super().__init__()
        self._bridge, self._watch = bridge, watch

    def suggest(self, trial_id: str) -> Any:
        """The next job for a new trial; before the first one, a trial a slot that starts its worker."""
        self._watch.look()
        warm_up = self._bridge.warm_up
        if warm_up.ask():
            return {**self._bridge.no_job, **self._placed(self._bridge.session.plan.resources.gpu)}
        if not warm_up.is_over:
            warm_up.tell()
            return None
        job = self._bridge.suggest(trial_id)
        if isinstance(job, Finish):
            return str(Searcher.FINISHED)
        if isinstance(job, Wait):
            return None
        return {"job": job.to_json(), **self._placed(job.gpu_fraction)}

    def _placed(self, gpu: float) -> dict[str, Any]:
        """What a trial is told beside its job: its worker's name, and where that may run."""
        return {"worker": self._bridge.worker, "gpu": gpu, "away_from": self._watch.kept_out}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended; its errors have come to `VerdictScheduler.on_trial_error` before."""
        if error:
            why = "the trial ended without a report; see the files under ray/"
            self._bridge.lost(trial_id, lambda: Loss("exception", why))
        else:
            self._bridge.ended(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    restore = save


class VerdictScheduler(FIFOScheduler):
    """Passes each report to the session and obeys."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bridge = bridge
        self._added: list[Trial] = []

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Note the order in which trials come."""
        self._added.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The newest trial that waits. It is given the worker that has just been freed; an older one waits for a worker
        of its own, which Tune would drop for the freed one: on a node that has just joined no worker would ever be up.
        """
        while self._added and self._added[-1].status != Trial.PENDING:
            self._added.pop()
        return self._added[-1] if self._added else None

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Go on, or end the trial with a checkpoint."""
        if "report" not in result:
            warm_up = self._bridge.warm_up
            warm_up.note(trial.trial_id, self._bridge.name(result["node"]))
            return str(TrialScheduler.STOP if warm_up.is_over else TrialScheduler.CONTINUE)
        goes_on = self._bridge.report(trial.trial_id, REPORTS.decode(result["report"]), result["node"])
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """The trial is over; its job may go on in another one."""
        self._bridge.lost(trial.trial_id, lambda: loss_of(trial))


def _trial_name(trial: Trial) -> str:
    """``spacing_mdn c0007 s42 1k->5k``: what Tune's logs show."""
    job = trial.config["job"]
    return MemberJob.from_json(job).label if job else "warm-up"


def _trial_folder(trial: Trial) -> str:
    job = trial.config["job"]
    return f"{MemberJob.from_json(job).member if job else 'warm-up'}-{trial.trial_id}"
