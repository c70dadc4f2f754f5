"""What a diagnostic of a model is called with: the trained model, the data it knows, and a fixed sample to look at.

Opened from one checkpoint, from a member of a run, or from an exported folder; the weights are checked against their
digests. The optimiser's state is left where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from analysis.view import Run
from trainables.api import TrainTask
from trainables.errors import CheckpointError, CheckpointMismatch
from trainables.given.module import GivenTask
from trainables.registry import build_config, get_family, get_part, resolve
from trainables.worker import checkpoint, exported


@dataclass(frozen=True)
class Subject:
    """A trained model, ready to be looked at.

    Attributes:
        member: ``c0007-s42``, or what a checkpoint says of itself.
        task: with the weights loaded, the model in evaluation mode; of one that was given in Python the task itself.
        sample: the family's fixed sample of the validation split; None for a family that has none.
    """

    member: str
    family: str
    config: Any
    seed: int
    task: TrainTask
    sample: Any
    data_dir: Path


def draw_sample(family: str, task: TrainTask) -> Any:
    """What diagnostics of a family look at, from the data of ``task``; None for a family without a sample."""
    draw = get_part(family, "sample")
    return None if draw is None else draw(task)


def subject_of(member: str, family: str, config: Any, seed: int, task: TrainTask, data_dir: Path) -> Subject:
    """What diagnostics are called with for ``task``, which has its weights."""
    own = task.task if isinstance(task, GivenTask) else task
    return Subject(member, family, config, seed, own, draw_sample(family, task), data_dir)


def open_checkpoint(
    folder: str | Path,
    *,
    family: str,
    config: Mapping[str, Any],
    seed: int,
    data_dir: str | Path,
    device: str = "cpu",
) -> Subject:
    """The model of one checkpoint, ``members/<id>/checkpoints/step-<n>`` or a link to it.

    Fields left out of ``config`` are the family's defaults.

    Raises:
        CheckpointCorrupt: a file is missing or was changed.
        CheckpointMismatch: it belongs to another family or config, or the config's schema has changed since.
        DataError: the data set is missing or corrupt.
    """
    path = Path(folder)
    index = checkpoint.read_index(path)
    if index.get("family") != family:
        raise CheckpointMismatch(f"{path}: is of family {index.get('family')!r}, not {family!r}")
    built = _config(path, family, config)
    state, _ = checkpoint.load(path, config_digest=built.digest())
    return _subject(str(index.get("member", path.name)), family, built, seed, state, data_dir, device, path)


def open_member(run: Run, member: str, data_dir: str | Path, device: str = "cpu") -> Subject:
    """The best checkpoint of a member of a run; raises `CheckpointError` if there is none, and as `open_checkpoint`."""
    if member not in run.members:
        known = ", ".join(sorted(name for name, m in run.members.items() if m.reports)) or "none yet"
        raise CheckpointError(f"member = {member!r}: is not in {run.root}; those that have trained: {known}")
    folder = run.root / "members" / member / "checkpoints"
    best = checkpoint.linked(folder, "best")
    if best is None:
        raise CheckpointError(f"{folder}: {member} ({run.members[member].status}) has no best checkpoint to look at")
    return open_checkpoint(
        best,
        family=run.plan["family"],
        config=run.candidates[run.members[member].candidate].config,
        seed=run.members[member].seed,
        data_dir=data_dir,
        device=device,
    )


def open_export(folder: str | Path, data_dir: str | Path, device: str = "cpu") -> Subject:
    """The model that ``tune-rh export`` wrote; raises as `open_checkpoint`."""
    found = exported.read(folder)
    task, index = exported.task_of(found, data_dir, device), found.index
    if task.model is not None:
        task.model.eval()
    place = Path(data_dir).absolute()
    return subject_of(index["member"], index["family"], found.config, index["seed"], task, place)


def _config(path: Path, family: str, fields: Mapping[str, Any]) -> Any:
    try:
        return build_config(get_family(family), written=[fields])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "config"
        raise CheckpointMismatch(
            f"{path}: its config does not fit this version of {family}: {where}: {first['msg']}"
        ) from error


def _subject(
    member: str,
    family: str,
    config: Any,
    seed: int,
    state: Mapping[str, Any],
    data_dir: str | Path,
    device: str,
    path: Path,
) -> Subject:
    task: TrainTask = resolve(get_family(family).task)(
        config, seed=seed, device=device, data_dir=Path(data_dir).absolute()
    )
    try:
        if task.model is None:
            task.load_state_dict(state)
        else:
            task.model.load_state_dict(state["model"])
            task.model.eval()
    except RuntimeError as error:
        raise CheckpointMismatch(f"{path}: its weights do not fit this version of {family} ({error})") from error
    return subject_of(member, family, config, seed, task, Path(data_dir).absolute())
