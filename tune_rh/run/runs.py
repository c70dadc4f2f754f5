"""Making and opening the folder of a run: freeze the plan, check that it still is the same, replay the journal."""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import reprlib
import shlex
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from trainables.api import Accompanied, DataSource, Family, Finding, Progress
from trainables.config import canonical_digest
from trainables.errors import DataError, TrainableError
from trainables.files import new_folder, remove_folder, sweep, write_atomic
from trainables.given.module import called, is_payload, write_payloads
from trainables.registry import dataset_of, get_family, resolve
from trainables.trust import signature
from trainables.worker import checkpoint
from tune_rh.errors import JournalCorrupt, PlanError, RunExists, RunMismatch, RunNotFound, TuneError, storage
from tune_rh.plan.configs import named_config
from tune_rh.plan.file import load_frozen, load_plan
from tune_rh.plan.from_task import title_of
from tune_rh.plan.schema import Plan
from tune_rh.preflight.origin import made_by, task_file
from tune_rh.record import provenance
from tune_rh.record.events import Event, FindingAccepted, RunCreated, encode
from tune_rh.record.failure import headline
from tune_rh.record.history import History
from tune_rh.record.journal import JOURNAL_SCHEMA, Chain, Journal, Mark, RunPaths, read
from tune_rh.record.snapshot import file as snapshot


def default_data_dir() -> Path:
    """``$TUNE_RH_DATA_DIR``, or ``data`` in the working folder."""
    return Path(os.environ.get("TUNE_RH_DATA_DIR", "data")).absolute()


def recorded_data_dir(paths: RunPaths) -> Path:
    """Where the run's data lay when it was made; if that is gone (a run from elsewhere), `default_data_dir`."""
    try:
        folder = Path(json.loads(paths.provenance.read_text(encoding="utf-8"))["data"]["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return default_data_dir()
    return folder if folder.is_dir() else default_data_dir()


def resume_command(paths: RunPaths, *options: str) -> str:
    """What to type to go on with the run from this folder, ``options`` included."""
    place = () if paths.root.parent == Path("runs").absolute() else ("--runs-dir", str(paths.root.parent))
    return shlex.join(("tune-rh", "resume", paths.root.name, *place, *options))


@dataclass(frozen=True)
class OpenRun:
    """A run that is ready to go on: its holder has it `tune_rh.record.journal.locked`.

    Attributes:
        leases: one for each try of a job, so that a worker which was replaced cannot pass for its successor.
    """

    paths: RunPaths
    plan: Plan
    history: History
    journal: Journal
    data_dir: Path
    leases: Iterator[str] = field(default_factory=lambda: map(f"{uuid.uuid4().hex}.{{}}".format, count(1)))


def create(plan: Plan, root: Path, data_dir: Path, accepted: Iterable[Finding] = ()) -> RunPaths:
    """Freeze ``plan`` into the new folder ``root``, which is there with its first events or not at all.

    Args:
        plan: it.
        root: does not exist yet.
        data_dir: where data sets lie.
        accepted: findings that the user goes on despite.

    Raises:
        RunExists: ``root`` is there already.
        trainables.errors.DataError: the data set cannot be used.
    """
    check_free(root)
    facts = replace(_facts(plan, data_dir), made_by=made_by(plan))
    data = {"name": dataset(plan), "sha256": facts.data_digest, "folder": str(data_dir)}
    facts_of_making = provenance.collect(data)
    if plan.from_outside:
        facts_of_making["signature"] = signature(plan.from_outside)
    file = task_file(plan.family) if ":" in plan.family else None
    if file is not None:
        facts_of_making["source"] = provenance.of_source(file)
    events: list[Event] = [facts, *(FindingAccepted(finding.id, finding.part, finding.message) for finding in accepted)]
    with storage(root, "start again"):
        if root.exists():
            remove_folder(root)
        try:
            with new_folder(root) as folder:
                _fill(RunPaths(folder), plan, events, facts_of_making)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                check_free(root)  # another process was quicker
            raise
    sweep(root.parent, glob.escape(root.name))
    return RunPaths(root)


def _fill(paths: RunPaths, plan: Plan, events: Iterable[Event], facts_of_making: Mapping[str, Any]) -> None:
    for folder in (paths.members, paths.ray):
        folder.mkdir()
    write_atomic(paths.plan, plan.toml())
    write_payloads(plan.from_outside, paths.root)
    write_atomic(paths.provenance, json.dumps(facts_of_making, indent=1))
    chain = Chain()
    write_atomic(paths.journal, b"".join(chain.seal(encode(event)) for event in events))


def check_free(root: Path) -> None:
    """Raise `RunExists` if something is at ``root``, other than a folder of a run in which nothing began."""
    if not os.path.lexists(root) or _nothing_began(root):
        return
    if root.is_dir() and not (root / "journal.jsonl").exists():
        raise RunExists(f"{root}: is there, and holds no run; choose another name with --name")
    raise RunExists(
        f"run {root.name!r} exists in {root.parent}: go on with `{resume_command(RunPaths(root))}`, "
        "or choose another name with --name"
    )


def free_name(task: object, runs_dir: Path) -> str:
    """The name of a task as that of a run, with a number behind it where it is taken."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", title_of(task)).strip("-._")[:60] or "task"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(name for name in names if not os.path.lexists(runs_dir / name))


def _nothing_began(root: Path) -> bool:
    """Whether ``root`` is empty, or holds nothing but what a run has before the first line of its journal."""
    paths = RunPaths(root)
    if not root.is_dir() or root.is_symlink():
        return False
    there = {path for path in root.iterdir() if not is_payload(path.name)}
    if not there <= {paths.plan, paths.provenance, paths.journal, paths.lock, paths.members, paths.ray}:
        return False
    if any(folder.is_dir() and any(folder.iterdir()) for folder in (paths.members, paths.ray)):
        return False
    return not paths.journal.is_file() or b"\n" not in paths.journal.read_bytes()


def check_lasting(folder: Path, option: str) -> None:
    """Raise `PlanError` if ``folder`` lies where Ray unpacks what a job uploads: it would go with the job."""
    if any(part.startswith("_ray_pkg_") for part in folder.absolute().parts):
        raise PlanError(
            f"{option} {folder}: lies in Ray's copy of a job, and would go with it; name one that nodes share"
        )


def clear_strays(paths: RunPaths) -> None:
    """Remove what killed processes left half-made in the run, and `create` beside it; for who holds the lock."""
    for folder in (paths.root, paths.report, *paths.members.glob("*"), *paths.members.glob("*/checkpoints")):
        sweep(folder)


def find(name: str, runs_dir: Path) -> RunPaths:
    """The run called ``name`` (or at that path); raises `RunNotFound` with the names there are."""
    for root in (runs_dir / name, Path(name)):
        if (root / "journal.jsonl").is_file():
            return RunPaths(root.absolute())
    known = sorted(p.parent.name for p in runs_dir.glob("[!.]*/journal.jsonl"))
    raise RunNotFound(f"run {name!r}: not found in {runs_dir}; there: {', '.join(known) or 'none'}")


def replay(paths: RunPaths, *, writer: bool = False, mark: Mark | None = None) -> tuple[Plan, History]:
    """Plan, as it is now, and history of a run on disk.

    Args:
        paths: of the run, which may be being written.
        writer: for the process that goes on with it: it repairs the journal, and knows every event and the family.
        mark: a new one, which then says from where `fold` goes on.

    Raises:
        JournalCorrupt: the frozen plan or the journal are damaged.
        trainables.errors.Untrusted: for a writer, the plan names code from outside, and the run is of another user.
    """
    try:
        plan = load_plan(paths.plan) if writer else load_frozen(paths.plan)
    except PlanError as error:
        raise JournalCorrupt(
            f"{error}\nThe plan of a run was changed by something else, or is of another version of tune-rh; "
            "restore it from a copy"
        ) from error
    history, at = snapshot.load(paths, plan) or (History(plan), Mark())
    if mark is not None:
        mark.position, mark.chain = at.position, at.chain
    fold(history, paths, mark or at, writer=writer, follows=mark is not None)
    return history.plan, history


def fold(history: History, paths: RunPaths, mark: Mark, *, writer: bool = False, follows: bool = True) -> None:
    """Let a history take in the events of a run's journal beyond ``mark``; raises as `replay`."""
    events = read(paths.journal, repair=writer, tolerant=not writer, mark=mark, follows=follows)
    for number, event in enumerate(events, start=mark.chain.seq + 1):
        try:
            history.apply(event)
        except (LookupError, ValueError, TypeError) as error:
            raise JournalCorrupt(
                f"{paths.journal}, event {number}: {type(event).__name__} does not follow from those before it "
                f"({type(error).__name__}: {error}). The journal was changed by something else; restore it from a copy"
            ) from error


def open_run(paths: RunPaths, data_dir: Path) -> OpenRun:
    """Replay the journal and check that plan, data and code's schema are still those of the run.

    Raises:
        RunMismatch: saying exactly what differs.
    """
    plan, history = replay(paths, writer=True)
    was, now = history.created, _facts(load_frozen(paths.plan), data_dir)
    if was is None:
        raise RunMismatch(f"{paths.journal}: does not begin with the run's facts; nothing was started in this run")
    names = {
        "plan_fingerprint": f"the plan ({paths.plan}) was changed",
        "data_digest": f"the data set {dataset(plan)!r} in {data_dir} is another one",
        "journal_schema": "the journal is of another version of tune-rh",
        "config_schema": f"the config fields of {called(plan.family)} have changed in the code",
    }
    differing = [
        f"{text}: was {getattr(was, field)}, is {getattr(now, field)}"
        for field, text in names.items()
        if getattr(was, field) != getattr(now, field)
    ]
    if differing:
        raise RunMismatch(f"run {paths.root.name!r} cannot go on as it was:\n  " + "\n  ".join(differing))
    _set_aside_unknown(paths, history)
    return OpenRun(paths, plan, history, Journal(paths.journal), data_dir)


def _set_aside_unknown(paths: RunPaths, history: History) -> None:
    """Set aside checkpoints that the journal cannot have led to: it has lost lines, and they are trained again.

    A worker may be ahead of the journal by the one report that it saved and that was not heard.
    """
    every, lost = history.plan.eval_every, []
    heard = {str(m.id): m.step for c in history.candidates.values() for m in c.members.values()}
    for folder in sorted(paths.members.glob("*/checkpoints")):
        name = folder.parent.name
        step = heard.get(name, -every)
        steps = checkpoint.set_aside_after(folder, step - step % every + every)
        if steps:
            lost.append(f"{name} stood at step {max(steps)}; the journal has it at {max(step, 0)}")
    if lost:
        warnings.warn(
            f"{paths.journal}: is behind the checkpoints of {len(lost)} members, so it has lost lines ({lost[0]}"
            f"{'; ...' if len(lost) > 1 else ''}). What it does not know is trained again; those checkpoints are kept "
            "as ahead-*",
            stacklevel=2,
        )


def dataset(plan: Plan) -> str:
    """The name of the data set that the plan's configs are trained on: the control's."""
    return dataset_of(get_family(plan.family), named_config(plan, plan.control)[0])


def data_source(family: Family) -> DataSource:
    """The family's data."""
    source: DataSource = resolve(family.data)
    return source


def make_data(
    family: Family, name: str, data_dir: Path, bar: Callable[[str], AbstractContextManager[Progress]]
) -> Path:
    """Make a data set; its folder. ``bar`` shows how far that is, under a title.

    Raises:
        trainables.errors.DataError: it cannot be made.
    """
    part = f"data set {name!r} of {family.name}: prepare()"
    with bar(f"{family.name} {name}") as progress, of_the_family(part):
        return data_source(family).prepare(name, data_dir, progress)


@contextmanager
def of_the_family(part: str) -> Iterator[None]:
    """Code of a family's at work on data: what it raises otherwise is a DataError that names ``part``."""
    try:
        yield
    except (TrainableError, TuneError, OSError):
        raise
    except Exception as error:
        raise DataError(f"{part} fails: {headline(traceback.format_exc())}") from error


def digest_of(family: Family, name: str, data_dir: Path) -> str:
    """The digest of a data set.

    Raises:
        trainables.errors.DataMissing: it is not made.
        trainables.errors.DataError: it cannot be used.
    """
    part = f"data set {name!r} of {family.name}: digest()"
    with of_the_family(part):
        digest: object = data_source(family).digest(name, data_dir)
    if not isinstance(digest, str):
        raise DataError(f"{part} returns {reprlib.repr(digest)} ({type(digest).__name__}): allowed is text")
    return digest


def companions(plan: Plan, data_dir: Path) -> Mapping[str, Path]:
    """Files of the data set that belong to an exported model, by their names there; none for most families."""
    source = data_source(get_family(plan.family))
    return source.companions(dataset(plan), data_dir) if isinstance(source, Accompanied) else {}


def _facts(plan: Plan, data_dir: Path) -> RunCreated:
    family = get_family(plan.family)
    return RunCreated(
        plan_fingerprint=plan.fingerprint(),
        data_digest=digest_of(family, dataset(plan), data_dir),
        journal_schema=JOURNAL_SCHEMA,
        config_schema=canonical_digest(resolve(family.config).model_json_schema()),
    )
