"""One trial round trip of a task, in seconds: what a search would find after hours, found before it starts.

The task is built, takes two steps, evaluates both splits twice, is saved, loaded into a task of another seed, and goes
on bit for bit. It happens in a process of its own, so that nothing of it is left: no state of a random generator, no
memory, no file. Not here: what needs no task (`tune_rh.preflight.inputs`).
"""

from __future__ import annotations

import math
import tempfile
import traceback
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from trainables.api import Family, Finding, Split, TrainTask, test_metric
from trainables.errors import MetricError, TrainableError
from trainables.given.module import GivenTask
from trainables.registry import resolve
from trainables.worker import checkpoint
from trainables.worker.metrics import check_reported, counts_of, taken
from trainables.worker.savable import unsavable
from tune_rh.preflight.apart import apart
from tune_rh.preflight.compare import differences, unlike
from tune_rh.record.failure import headline

T = TypeVar("T")
_SEED, _OTHER_SEED = 1, 2


def try_task(
    family: Family,
    config: Any,
    data_dir: Path,
    *,
    device: str = "cpu",
    wanted: Collection[str] | None = (),
    num_steps: int = 2,
) -> list[Finding]:
    """Everything that one trial round trip finds, in a process of its own where that can be.

    Args:
        family: whose task.
        config: to build it from; its data set is made.
        data_dir: where data sets lie.
        device: ``cpu`` or ``cuda``.
        wanted: metrics that a plan's rules need beside the objective; None: no plan, so all that the family declares.
        num_steps: before the state is saved, and after it.
    """
    trial = Trial(family, config, data_dir, device, wanted, num_steps)
    if device == "cuda":
        import torch

        # A forked process could not use CUDA that is initialised here.
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            with torch.random.fork_rng():
                return trial.run()
    return apart(trial.run)


class Trial:
    """The round trip of one task; see `try_task`, which keeps it apart."""

    def __init__(
        self,
        family: Family,
        config: Any,
        data_dir: Path,
        device: str,
        wanted: Collection[str] | None,
        num_steps: int,
    ) -> None:
        self._family, self._config, self._data_dir, self._device = family, config, data_dir, device
        self._wanted, self._num_steps = wanted, num_steps
        self._found: list[Finding] = []

    def run(self) -> list[Finding]:
        """Everything that is found, once each, with the part of the family that has to be mended."""
        task = self._tried("T01", "task", self._build, _SEED)
        if task is not None:
            steps = self._steps(task)
            self._evaluate(task, steps[-1].keys() if steps else ())
            state = self._save(task)
            if state is not None and self._family.model:
                self._tried("T06", "model", self._load_model, state)
            if steps is not None:
                self._go_on(task, state, self._twin(steps))
        return list(dict.fromkeys(self._found))

    def _build(self, seed: int) -> TrainTask:
        task: TrainTask = resolve(self._family.task)(
            self._config, seed=seed, device=self._device, data_dir=self._data_dir
        )
        return task

    def _take_steps(self, task: TrainTask) -> list[dict[str, float]]:
        return [taken(task.step(), "it") for _ in range(self._num_steps)]

    def _steps(self, task: TrainTask) -> list[dict[str, float]] | None:
        reports = self._tried("T02", "task.step()", self._take_steps, task)
        if reports is not None:
            counts = counts_of(metric for metric in self._family.metrics if metric.rate_of)
            self._tried("T04", "task.step()", check_reported, reports[-1], ("train_loss", *counts), "it")
            for count in counts:
                first, last = (report.get(count, math.nan) for report in (reports[0], reports[-1]))
                if last <= first:
                    message = (
                        f"{count} is {first:g} after step 1 and {last:g} after step {self._num_steps}: a count behind "
                        "a rate is of all steps so far"
                    )
                    self._note("T04", "task.step()", message, "warn" if last == first else "refuse")
            if not math.isfinite(reports[-1].get("train_loss", 0.0)):
                self._note(
                    "T02", "task.step()", f"train_loss is {reports[-1]['train_loss']} at step {self._num_steps}", "warn"
                )
        return reports

    def _evaluate(self, task: TrainTask, trained: Collection[str]) -> None:
        before = self._tried("T05", "task.state_dict()", _snapshot, task)
        val, test = self._read(task, "val"), self._read(task, "test")
        after = None if before is None else self._tried("T05", "task.state_dict()", _snapshot, task)
        if before is not None and after is not None and (val is not None or test is not None):
            changed = next(differences(before, after, "state"), None)
            if changed is not None:
                self._note("T03", "task.evaluate()", f"changes what training goes on from: {changed}")
        if val is not None:
            self._check_val(val, trained)
        if test is not None:
            self._check_test(test, val or {})
        twice = sorted({*trained} & {*(val or ()), *(test or ())})
        if twice:
            self._note("T04", "task.evaluate()", f"reports under a name of step(): {', '.join(twice)}", "warn")
        if self._wanted is None and val is not None and test is not None:
            declared = {metric.name for metric in self._family.metrics if not metric.rate_of}
            absent = sorted(declared - {*val, *test, *trained, self._family.objective.name})
            if absent:
                self._note("T04", "task", f"does not report {', '.join(absent)}, which its family declares", "warn")

    def _check_val(self, val: Mapping[str, float], trained: Collection[str]) -> None:
        part, objective = "task.evaluate('val')", self._family.objective.name
        self._tried("T04", part, check_reported, val, (objective,), "it")
        if not math.isfinite(val.get(objective, 0.0)):
            self._note("T03", part, f"{objective} is {val[objective]} at step {self._num_steps}", "warn")
        absent = [name for name in self._wanted or () if name not in val and name not in trained]
        if absent:
            message = f"does not report {', '.join(absent)}, without which the plan's rules let no candidate pass"
            self._note("T04", part, message, "warn")

    def _check_test(self, test: Mapping[str, float], val: Mapping[str, float]) -> None:
        part, objective = "task.evaluate('test')", self._family.objective.name
        common = sorted(test.keys() & val.keys())
        if common:
            names = ", ".join(f"{name} (wanted: {test_metric(name)})" for name in common)
            self._note("T04", part, f"reports under a name of val: {names}", "warn")
        if not {objective, test_metric(objective)} & test.keys():
            self._tried("T04", part, check_reported, test, (test_metric(objective),), "it")

    def _read(self, task: TrainTask, split: Split) -> dict[str, float] | None:
        part = f"task.evaluate({split!r})"
        first = self._tried("T03", part, lambda: taken(task.evaluate(split), "it"))
        again = None if first is None else self._tried("T03", part, lambda: taken(task.evaluate(split), "it"))
        if first is not None and again is not None:
            change = next(differences(first, again, ""), None)
            if change is not None:
                self._note("T03", part, f"differs the second time, with the same weights: {change}")
        return first

    def _save(self, task: TrainTask) -> dict[str, Any] | None:
        """What comes back from a checkpoint."""
        return self._tried("T05", "task.state_dict()", self._through_a_checkpoint, task)

    def _through_a_checkpoint(self, task: TrainTask) -> dict[str, Any] | None:
        state = task.state_dict()
        lost = list(unsavable(state))
        for line in lost:
            self._note("T05", "task.state_dict()", line)
        if lost:
            return None
        with tempfile.TemporaryDirectory(prefix="tune-rh-trial-") as folder:
            return checkpoint.load(checkpoint.save(Path(folder), self._num_steps, state, {}))[0]

    def _twin(self, steps: list[dict[str, float]]) -> TrainTask | None:
        """Another task of the same seed, which is neither evaluated nor saved; None unless it takes the same steps."""
        twin = self._tried("T01", "task", self._build, _SEED)
        taken_by_twin = None if twin is None else self._tried("T02", "task.step()", self._take_steps, twin)
        if taken_by_twin is None:
            return None
        change = next(differences(steps, taken_by_twin, "steps"), None)
        if change is not None:
            self._unequal("T07", "task", f"built twice with the same seed it trains differently: {change}")
            return None
        return twin

    def _go_on(self, task: TrainTask, state: dict[str, Any] | None, twin: TrainTask | None) -> None:
        """What was evaluated and saved goes on as its twin does; so does a task of another seed that has loaded it."""
        loaded, kept = (None, []) if state is None else self._loaded(state)
        left_out = "" if loaded is None else unlike(_own(task), _own(loaded))
        went, of_twin, of_loaded = (
            None if one is None else self._tried("T02", "task.step()", self._take_steps, one)
            for one in (task, twin, loaded)
        )
        if went is None:
            return
        moved = None if of_twin is None else next(differences(self._after(of_twin), self._after(went), ""), None)
        if moved is not None and not any(finding.id == "T03" for finding in self._found):
            message = f"changes how training goes on, or saving does ({moved}); what it changes is not in the state"
            self._unequal("T03", "task.evaluate()", message)
        if loaded is None or of_loaded is None or (moved is not None and of_loaded == of_twin):
            return
        change = next(differences(self._after(went), self._after(of_loaded), ""), None)
        if change is None:
            a, b = (self._tried("T05", "task.state_dict()", _snapshot, one) for one in (task, loaded))
            change = None if a is None or b is None else next(differences(a, b, "state"), None)
        if change is not None:
            why = "what else step() depends on is not in the state"
            if kept:
                why = f"not restored: {'; '.join(kept[:3])}"
            elif left_out:
                why = f"state_dict() leaves out what differs in the two: {left_out}"
            message = f"a task of another seed does not go on bit for bit ({change}); {why}"
            self._unequal("T05", "task.load_state_dict()", message)

    def _after(self, reports: list[dict[str, float]]) -> dict[str, dict[str, float]]:
        """The reports of the steps that follow the first ones, by what they are called."""
        return {f"step {self._num_steps + 1 + i}": report for i, report in enumerate(reports)}

    def _loaded(self, state: dict[str, Any]) -> tuple[TrainTask | None, list[str]]:
        """A task of another seed, which has moved already, with the state; and what it has not taken of it."""
        other = self._tried("T01", "task", self._build, _OTHER_SEED)
        if other is None or self._tried("T02", "task.step()", other.step) is None:
            return None, []
        # A task may empty what it is given, or go on in its very tensors.
        if self._tried("T05", "task.load_state_dict()", _take_state, other, deepcopy(state)) is None:
            return None, []
        has = self._tried("T05", "task.state_dict()", _snapshot, other)
        return other, [] if has is None else list(differences(state, has, "state"))

    def _load_model(self, state: Mapping[str, Any]) -> bool:
        model = resolve(self._family.model)(self._config)
        model.load_state_dict(state["model"])
        return True

    def _tried(self, name: str, part: str, call: Callable[..., T], *arguments: Any) -> T | None:
        """What the call returns; None, with a finding, where it fails: it is code of the user's."""
        try:
            return call(*arguments)
        except MetricError as error:
            self._note("T04", part, str(error).removeprefix("it "))
        except TrainableError as error:
            self._note(name, part, str(error))
        except (Exception, SystemExit):  # noqa: BLE001 - code of the user's: it becomes a finding
            self._note(name, part, f"fails: {headline(traceback.format_exc())}")
        return None

    def _unequal(self, name: str, part: str, message: str) -> None:
        """On a GPU the last bits of a sum may differ from one time to the next."""
        self._note(name, part, message, "warn" if self._device == "cuda" else "refuse")

    def _note(self, name: str, part: str, message: str, level: Any = "refuse") -> None:
        self._found.append(Finding(name, part, message, level))


def _own(task: Any) -> Any:
    """The user's own object."""
    return task.task if isinstance(task, GivenTask) else task


def _take_state(task: TrainTask, state: Mapping[str, Any]) -> bool:
    task.load_state_dict(state)
    return True


def _snapshot(task: TrainTask) -> Any:
    """The state as it is now; None where it cannot be saved, which is found elsewhere."""
    from trainables.training.step import snapshot

    state = task.state_dict()
    return None if any(unsavable(state)) else snapshot(state)
