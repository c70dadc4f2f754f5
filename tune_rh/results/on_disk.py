"""A run on disk as Python has it: tables, the best with its weights, the report, the export."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.tables import RunTables
from analysis.view import Standing
from trainables.files import make_folder, write_atomic
from trainables.given.config import GivenConfig
from trainables.given.module import GivenTask, write_payloads
from trainables.registry import build_config, get_family, resolve
from tune_rh.errors import ExportError
from tune_rh.plan.kinds import Comparison
from tune_rh.record.ranking import best_member
from tune_rh.results.reading import Reading
from tune_rh.run import runs

if TYPE_CHECKING:
    from analysis.stats.claims import Claim


@dataclass(frozen=True)
class Best(Standing):
    """The best candidate, and its task with the weights of its best seed."""

    reading: Reading = field(repr=False, compare=False)

    @property
    def config(self) -> Any:
        """Its config: of the kind that ``base`` was where a task was handed over, else an object of the family."""
        config = self._config()
        return config.handed() if isinstance(config, GivenConfig) else config

    def load(self, device: str = "cpu") -> Any:
        """The task of its best seed, as it was at its best evaluation.

        Raises:
            ExportError: its checkpoint is not there.
            trainables.errors.CheckpointCorrupt: it is damaged.
        """
        from trainables.worker import checkpoint

        paths, history = self.reading.paths, self.reading.history
        member = best_member(history, self.candidate)
        added = history.candidates[self.candidate].added
        path = checkpoint.linked(paths.member(member) / "checkpoints", "best")
        if path is None:
            raise ExportError(f"{paths.member(member) / 'checkpoints'}: the best checkpoint is not there")
        state, _ = checkpoint.load(path, config_digest=added.config_digest)
        build = resolve(get_family(history.plan.family).task)
        task = build(self._config(), seed=member.seed, device=device, data_dir=runs.recorded_data_dir(paths))
        task.load_state_dict(state)
        return task.task if isinstance(task, GivenTask) else task

    def _config(self) -> Any:
        history = self.reading.history
        return build_config(get_family(history.plan.family), written=[history.candidates[self.candidate].added.config])


class Run(RunTables):
    """A run on disk as it stood when it was read: its tables, its best, its report and its export.

    Attributes:
        root: its folder.
    """

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading.run)
        self.root = reading.paths.root
        self._reading = reading

    @property
    def best(self) -> Best | None:
        """The best of those that finished, are ranked and pass what the plan requires; None if there is none."""
        best = self.run.best
        if best is None:
            return None
        return Best(**{field.name: getattr(best, field.name) for field in fields(best)}, reading=self._reading)

    @property
    def claim(self) -> Claim | None:
        """What a comparison says of B - A, where lower is better; None for another plan, or before both have begun."""
        from tune_rh.decide import comparison

        history = self._reading.history
        if not isinstance(history.plan, Comparison) or len(history.candidates) < 2:
            return None
        return comparison.claim(history)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the report; the path of its page. With ``out`` that page alone, elsewhere than in the run's folder."""
        from tune_rh.results.reporting import write

        return write(self._reading, runs.recorded_data_dir(self._reading.paths), None if out is None else Path(out))

    def export(self, out: str | Path, candidate: str | None = None, *, despite: bool = False) -> Path:
        """Write the best candidate (or ``candidate``) to the new folder ``out``, with its evidence; returns ``out``.

        Raises:
            ExportError: nothing has finished, it does not pass what the plan requires (and not ``despite`` that), or
                ``out`` is taken.
        """
        from tune_rh.results.export import export
        from tune_rh.results.reporting import run_baselines

        paths, history = self._reading.paths, self._reading.history
        data_dir = runs.recorded_data_dir(paths)
        baselines, _ = run_baselines(self._reading, data_dir, keep=False)
        export(paths, history, Path(out), candidate, baselines, despite, runs.companions(history.plan, data_dir))
        return Path(out)

    def write_plan(self, path: str | Path) -> Path:
        """Write the plan as a file, with what it needs of a task that was given in Python beside it; returns ``path``.

        ``tune-rh search`` runs it again, under the name that ``--name`` gives.
        """
        file, plan = Path(path), self._reading.history.plan
        make_folder(file.absolute().parent)
        write_payloads(plan.from_outside, file.parent)
        write_atomic(file, plan.toml())
        return file
