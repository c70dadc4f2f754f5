"""One trial round trip of a task, in seconds: what a search would find after hours, found before it starts.

The task is built, takes two steps, evaluates both splits twice, is saved, loaded into a task of another seed, and goes
on bit for bit. It happens in a process of its own, so that nothing of it is left: no state of a random generator, no
memory, no file. Not here: what needs no task (`tune_rh.preflight.inputs`).
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from trainables.api import Family, Finding, Split, TrainTask, test_metric
from trainables.errors import MetricError, TrainableError
from trainables.registry import resolve
from trainables.worker import checkpoint
from trainables.worker.metrics import check_reported, counts_of, taken
from trainables.worker.savable import unsavable
from tune_rh.record.failure import headline

T = TypeVar("T")
_SEED, _OTHER_SEED = 1, 2


def try_task(
    family: Family,
    config: Any,
    data_dir: Path,
    *,
    device: str = "cpu",
    wanted: Collection[str] = (),
    num_steps: int = 2,
) -> list[Finding]:
    """Everything that one trial round trip finds, in a process of its own where that can be.

    Args:
        family: whose task.
        config: to build it from; its data set is made.
        data_dir: where data sets lie.
        device: ``cpu`` or ``cuda``.
        wanted: metrics that a plan's rules need beside the objective.
        num_steps: before the state is saved, and after it.
    """
    trial = Trial(family, config, data_dir, device, wanted, num_steps)
    if device == "cuda":
        import torch

        # A forked process could not use CUDA that is initialised here.
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            with torch.random.fork_rng():
                return trial.run()
    return _apart(trial.run)


class Trial:
    """The round trip of one task; see `try_task`, which keeps it apart."""

    def __init__(
        self,
        family: Family,
        config: Any,
        data_dir: Path,
        device: str = "cpu",
        wanted: Collection[str] = (),
        num_steps: int = 2,
    ) -> None:
        self._family, self._config, self._data_dir, self._device = family, config, data_dir, device
        self._wanted, self._num_steps = wanted, num_steps
        self._found: list[Finding] = []

    def run(self) -> list[Finding]:
        """Everything that is found, each with the part of the family that has to be mended."""
        task = self._tried("T01", "task", self._build, _SEED)
        if task is not None:
            steps = self._steps(task)
            self._evaluate(task, steps[-1].keys() if steps else ())
            state = self._save(task)
            if state is not None:
                self._load(task, state)
                self._tried("T06", "model", self._load_model, state)
            if steps is not None:
                self._tried("T07", "task", self._again, steps)
        return self._found

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
            rates = [metric for metric in self._family.metrics if metric.rate_of]
            self._tried("T04", "task.step()", check_reported, reports[-1], ("train_loss", *counts_of(rates)), "it")
            if not math.isfinite(reports[-1].get("train_loss", 0.0)):
                self._note(
                    "T02", "task.step()", f"train_loss is {reports[-1]['train_loss']} at step {self._num_steps}", "warn"
                )
        return reports

    def _evaluate(self, task: TrainTask, trained: Collection[str]) -> None:
        before = self._tried("T05", "task.state_dict()", _snapshot, task)
        val, test = self._read(task, "val"), self._read(task, "test")
        if before is not None and (val is not None or test is not None):
            changed = next(_differences(before, _snapshot(task), "state"), None)
            if changed is not None:
                self._note("T03", "task.evaluate()", f"changes what training goes on from: {changed}")
        objective, wanted = self._family.objective.name, test_metric(self._family.objective.name)
        if val is not None:
            self._tried("T04", "task.evaluate('val')", check_reported, val, (objective,), "it")
            if not math.isfinite(val.get(objective, 0.0)):
                self._note(
                    "T03", "task.evaluate('val')", f"{objective} is {val[objective]} at step {self._num_steps}", "warn"
                )
            absent = [name for name in self._wanted if name not in val and name not in trained]
            if absent:
                message = f"does not report {', '.join(absent)}, without which the plan's rules let no candidate pass"
                self._note("T04", "task.evaluate('val')", message, "warn")
        if test is None:
            return
        common = sorted(test.keys() & (val or {}).keys())
        if common:
            names = ", ".join(f"{name} (wanted: {test_metric(name)})" for name in common)
            self._note("T04", "task.evaluate('test')", f"reports under a name of val: {names}", "warn")
        if wanted not in test and objective not in test:
            self._tried("T04", "task.evaluate('test')", check_reported, test, (wanted,), "it")

    def _read(self, task: TrainTask, split: Split) -> dict[str, float] | None:
        part = f"task.evaluate({split!r})"
        first = self._tried("T03", part, lambda: taken(task.evaluate(split), "it"))
        again = None if first is None else self._tried("T03", part, lambda: taken(task.evaluate(split), "it"))
        if first is not None and again is not None:
            change = next(_differences(first, again, ""), None)
            if change is not None:
                self._note("T03", part, f"differs the second time, with the same weights: {change}")
        return first

    def _save(self, task: TrainTask) -> dict[str, Any] | None:
        """What comes back from a checkpoint."""
        state = self._tried("T05", "task.state_dict()", task.state_dict)
        if state is None:
            return None
        lost = list(unsavable(state))
        for line in lost:
            self._note("T05", "task.state_dict()", line)
        if lost:
            return None

        def through_a_checkpoint() -> dict[str, Any]:
            with tempfile.TemporaryDirectory(prefix="tune-rh-trial-") as folder:
                return checkpoint.load(checkpoint.save(Path(folder), self._num_steps, state, {}))[0]

        return self._tried("T05", "task.state_dict()", through_a_checkpoint)

    def _load(self, task: TrainTask, state: dict[str, Any]) -> None:
        """A task of another seed, which has moved already, takes the state and goes on as the one that was saved."""
        other = self._tried("T01", "task", self._build, _OTHER_SEED)
        if other is None or self._tried("T02", "task.step()", other.step) is None:
            return
        if self._tried("T05", "task.load_state_dict()", _take_state, other, state) is None:
            return
        # Now: a task may go on in the very tensors that it was given.
        kept = list(_differences(state, _snapshot(other), "state"))
        both = [self._tried("T02", "task.step()", self._take_steps, one) for one in (task, other)]
        if both[0] is None or both[1] is None:
            return
        change = next(_differences(both[0], both[1], "steps"), None)
        change = change or next(_differences(task.state_dict(), other.state_dict(), "state"), None)
        if change is not None:
            why = f"not restored: {'; '.join(kept[:3])}" if kept else "what else step() depends on is not in the state"
            message = f"a task of another seed does not go on bit for bit ({change}); {why}"
            self._note("T05", "task.load_state_dict()", message, "warn" if self._device == "cuda" else "refuse")

    def _load_model(self, state: Mapping[str, Any]) -> bool:
        model = resolve(self._family.model)(self._config)
        model.load_state_dict(state["model"])
        return True

    def _again(self, steps: list[dict[str, float]]) -> bool:
        """The same seed gives the same steps."""
        change = next(_differences(steps, self._take_steps(self._build(_SEED)), "steps"), None)
        if change is not None:
            level = "warn" if self._device == "cuda" else "refuse"
            self._note("T07", "task", f"built twice with the same seed it trains differently: {change}", level)
        return True

    def _tried(self, name: str, part: str, call: Callable[..., T], *arguments: Any) -> T | None:
        """What the call returns; None, with a finding, where it fails: it is code of the user's."""
        try:
            return call(*arguments)
        except MetricError as error:
            self._note("T04", part, str(error).removeprefix("it "))
        except TrainableError as error:
            self._note(name, part, str(error))
        except Exception:  # noqa: BLE001 - code of the user's: it becomes a finding
            self._note(name, part, f"fails: {headline(traceback.format_exc())}")
        return None

    def _note(self, name: str, part: str, message: str, level: Any = "refuse") -> None:
        self._found.append(Finding(name, part, message, level))


def _take_state(task: TrainTask, state: Mapping[str, Any]) -> bool:
    task.load_state_dict(state)
    return True


def _snapshot(task: TrainTask) -> Any:
    """The state as it is now; None where it cannot be saved, which is found elsewhere."""
    from trainables.training.step import snapshot

    state = task.state_dict()
    return None if any(unsavable(state)) else snapshot(state)


def _differences(a: Any, b: Any, where: str) -> Iterator[str]:
    """Places in which two reports or states differ, NaN being equal to itself; the first places first."""
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{where} is {a.dtype} {tuple(a.shape)}, then {b.dtype} {tuple(b.shape)}"
        elif not _equal(a, b):
            yield f"{where} differs in value"
    elif isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            inside = f"{where}[{key!r}]" if where else str(key)
            if key in a and key in b:
                yield from _differences(a[key], b[key], inside)
            else:
                yield f"{inside} is there once only"
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _differences(one, other, f"{where}[{index}]")
    elif not (a == b or (a != a and b != b)):
        yield f"{where} is {a!r}, then {b!r}"


def _equal(a: Any, b: Any) -> bool:
    import torch

    a, b = a.detach().cpu(), b.detach().cpu()
    if torch.equal(a, b):
        return True
    return bool(a.is_floating_point() and torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True))


def _apart(work: Callable[[], list[Finding]]) -> list[Finding]:
    """What ``work`` returns, done in a forked process: it has the modules of this one, and leaves nothing in it."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _answer(work, reading, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    if status or not answer:
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return [Finding("T00", "task", f"ends the process that tries it ({how})")]
    findings: list[Finding] = pickle.loads(answer)
    return findings


def _answer(work: Callable[[], list[Finding]], reading: int, writing: int) -> None:
    """In the forked process, which ends here."""
    code = 1
    try:
        import torch

        os.close(reading)
        torch.set_num_threads(1)  # a pool of threads does not survive a fork
        answer = pickle.dumps(work())
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        code = 0
    except KeyboardInterrupt:
        pass
    except BaseException:  # noqa: BLE001 - it is shown, and the process ends
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
