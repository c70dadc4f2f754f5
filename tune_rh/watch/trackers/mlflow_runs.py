"""A search in MLflow: a run for it, and below that a run for each member, with its curve, config and tags.

The server is asked what it has, and gets what it lacks, so that a search that was killed goes on in the same runs.
Where the server is says ``MLFLOW_TRACKING_URI``; the experiment is ``MLFLOW_EXPERIMENT_NAME``, or called as the family.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trainables.registry import get_family
from tune_rh.record.events import (
    Diagnosed,
    Evaluated,
    Event,
    JobEnded,
    JobStarted,
    MemberId,
    SessionEnded,
    SessionStarted,
    Tested,
)
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.watch.trackers import facts

_SEARCH = "search"
_ID, _OF = "tune_rh.id", "tune_rh.member"
_LONGEST_PARAM, _MOST_PARAMS, _MOST_FOUND = 6000, 100, 1000
_DEFAULTS = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own 7 take minutes, in which nothing says that the server is away
}


class MLflow:
    """A watcher.

    Args:
        uri: of the server (None: as MLflow has it).
        experiment: the name of one (None: ``MLFLOW_EXPERIMENT_NAME``, or the family's).
    """

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        self._uri, self._named = uri, experiment

    def begin(self, root: Path, history: History) -> None:
        """Find the runs that the server has of this search."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        self._root, self._identity = root, facts.identity(root)
        self._client = MlflowClient(self._uri)
        name = self._named or os.environ.get("MLFLOW_EXPERIMENT_NAME") or get_family(history.plan.family).name
        found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._open: set[str] = set()
        self._runs = self._found()
        self._steps: dict[str, set[int]] = {}
        if _SEARCH not in self._runs:
            self._create(_SEARCH, history.plan.name, {"run": history.plan.name, "kind": history.plan.kind})
            plan = history.plan.model_dump(mode="json", exclude_defaults=True, exclude={"configs"})
            self._params(_SEARCH, plan)
            self._client.log_artifact(self._runs[_SEARCH], str(RunPaths(root).plan))

    def __call__(self, event: Event, history: History) -> None:
        """Log what ``event`` says."""
        match event:
            case SessionStarted():
                self._set_status(_SEARCH, "RUNNING")
            case JobStarted(purpose="train"):
                self._begin_job(event.member, history)
            case Evaluated():
                self._log(event.member, event.step, {**event.metrics, "train_s": event.train_s}, history)
            case Tested():
                read = {name: value for name, value in event.metrics.items() if name.startswith("test_")}
                self._log(event.member, event.step, read, history, of="test")
            case Diagnosed():
                for name, verdict in event.verdicts.items():
                    self._client.set_tag(self._of(event.member, history), f"diagnosis.{name}", verdict)
            case JobEnded():
                ended = facts.status(event.outcome)
                if ended is not None and str(event.member) in self._runs:
                    self._set_status(str(event.member), ended)
            case SessionEnded():
                self._end(event, history)

    def _begin_job(self, member: MemberId, history: History) -> None:
        name = str(member)
        known = name in self._runs
        run = self._of(member, history)
        if known:
            self._client.set_tag(run, "stage", facts.tags(history, member)["stage"])
        self._set_status(name, "RUNNING")

    def _of(self, member: MemberId, history: History) -> str:
        """The run of a member, which is made if the server has none."""
        name = str(member)
        if name not in self._runs:
            self._create(name, name, facts.tags(history, member))
            self._params(name, {"seed": member.seed, **history.candidates[member.candidate].added.config})
            self._steps[name] = set()
        return self._runs[name]

    def _log(
        self, member: MemberId, step: int, metrics: Mapping[str, float], history: History, of: str = "val"
    ) -> None:
        """Log metrics that the server has not got: a kill may come between its answer and our note of that."""
        from mlflow.entities import Metric

        run, at = self._of(member, history), f"{of} {member}"
        if at not in self._steps:
            name = next(iter(metrics), "")
            self._steps[at] = {m.step for m in self._client.get_metric_history(run, name)} if name else set()
        if step in self._steps[at]:
            return
        now = time.time_ns() // 10**6
        self._client.log_batch(run, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])
        self._steps[at].add(step)

    def _end(self, event: SessionEnded, history: History) -> None:
        ended = facts.status(event.reason) or "FINISHED"
        for name in sorted(self._open - {_SEARCH}):
            self._set_status(name, ended)
        found = facts.best(history, self._root) if event.reason == "finished" else None
        if found is not None:
            self._keep_best(*found, history)
        self._set_status(_SEARCH, ended)

    def _keep_best(self, member: MemberId, config: Mapping[str, Any], weights: Path | None, history: History) -> None:
        run = self._runs[_SEARCH]
        self._client.set_tag(run, "best", str(member))
        self._client.set_tag(self._of(member, history), "best", "true")
        best = history.member(member)
        self._log_best(run, history.plan.objective, history.shown(best.curve.best), best.step)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "config.json"
            file.write_text(json.dumps(config, indent=1), encoding="utf-8")
            self._client.log_artifact(run, str(file), "best")
        if weights is not None:
            self._client.log_artifact(run, str(weights), "best")

    def _log_best(self, run: str, objective: str, value: float, step: int) -> None:
        if all(metric.step != step for metric in self._client.get_metric_history(run, f"best_{objective}")):
            self._client.log_metric(run, f"best_{objective}", value, step=step)

    def _create(self, of: str, name: str, tags: Mapping[str, str]) -> None:
        below = {"mlflow.parentRunId": self._runs[_SEARCH]} if of != _SEARCH else {}
        tags = {**tags, _ID: self._identity, _OF: of, **below}
        self._runs[of] = self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
        self._open.add(of)

    def _params(self, of: str, fields: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)[:_LONGEST_PARAM]) for name, value in facts.flat(fields).items()]
        for first in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._runs[of], params=params[first : first + _MOST_PARAMS])

    def _set_status(self, of: str, status: str) -> None:
        if status == "RUNNING" and of in self._open:
            return
        if status == "RUNNING":
            self._client.update_run(self._runs[of], status)
            self._open.add(of)
        else:
            self._client.set_terminated(self._runs[of], status)
            self._open.discard(of)

    def _found(self) -> dict[str, str]:
        runs: dict[str, str] = {}
        token: str | None = ""
        asked = f"tags.`{_ID}` = '{self._identity}'"
        while token is not None:
            page = self._client.search_runs(
                [self._experiment], asked, max_results=_MOST_FOUND, page_token=token or None
            )
            runs |= {run.data.tags[_OF]: run.info.run_id for run in page}
            self._open |= {run.data.tags[_OF] for run in page if run.info.status == "RUNNING"}
            token = page.token or None
        return runs
