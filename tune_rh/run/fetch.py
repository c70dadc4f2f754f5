"""The folder of a run from its mirror, for a machine that has it no more, or never had it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from trainables.files import make_folder, new_folder, sync
from trainables.given.module import given_modules
from trainables.worker import checkpoint
from tune_rh.errors import PlanError, RunMismatch, RunNotFound, first_line, storage
from tune_rh.plan.file import load_frozen
from tune_rh.record.journal import RunPaths
from tune_rh.run.runs import check_free, find
from tune_rh.watch.mirror import Kept, Manifest, Store, checkpoint_files, segment


def find_or_fetch(run: str, runs_dir: Path, say: Callable[[str], object]) -> tuple[RunPaths, str | None]:
    """The run of that name or folder; or one at an address, fetched into ``runs_dir``, and the mirror that it is in.

    Raises:
        RunNotFound: it is not there.
        RunExists: a run of that name is in ``runs_dir`` already.
        RunMismatch: the mirror is damaged.
    """
    runs_dir = runs_dir.absolute()
    if "://" not in run:
        return find(run, runs_dir), None
    mirror, _, name = run.rstrip("/").rpartition("/")
    if name in ("", ".", "..") or mirror.endswith("/"):
        raise PlanError(f"{run!r}: is no run in a mirror: it is written ADDRESS/NAME, as in s3://bucket/prefix/NAME")
    store, root = Store(run), runs_dir / name
    check_free(root)
    try:
        manifest = store.manifest()
        if manifest is None:
            raise RunNotFound(f"{run}: holds no mirror of a run")
        say(f"Fetching {run} into {root}")
        with storage(root, "resume the run"), new_folder(root) as folder:
            _fetch(store, manifest, RunPaths(folder), say)
    except FileNotFoundError as error:
        raise RunMismatch(f"{run}: the mirror is not whole ({first_line(error)})") from error
    except OSError as error:
        raise RunNotFound(f"{run}: cannot be read ({first_line(error)})") from error
    return RunPaths(root), mirror


def _fetch(store: Store, manifest: Manifest, paths: RunPaths, say: Callable[[str], object]) -> None:
    for folder in (paths.members, paths.ray):
        folder.mkdir()
    for path in (paths.plan, paths.provenance):
        store.download(path.name, path)
    for name in given_modules(load_frozen(paths.plan).from_outside):
        store.download(f"{name}.pkl", paths.root / f"{name}.pkl")
    digest = hashlib.sha256()
    with paths.journal.open("xb") as file:
        for start in manifest.segments:
            piece = store.read(segment(start))
            file.write(piece)
            digest.update(piece)
    if digest.hexdigest() != manifest.sha256:
        raise RunMismatch(f"{store.address}: the journal in the mirror is not what was written")
    for member, kept in manifest.members.items():
        _fetch_member(store, member, kept, paths, say)


def _fetch_member(store: Store, member: str, kept: Kept, paths: RunPaths, say: Callable[[str], object]) -> None:
    """Fetch the checkpoints of a member; what has gone of them is said, and is trained again."""
    folder = paths.member(member) / "checkpoints"
    make_folder(folder)
    for step in kept.steps:
        try:
            with new_folder(folder / f"step-{step:08d}") as made:
                for name, at in checkpoint_files(member, step).items():
                    store.download(at, made / name)
        except FileNotFoundError:
            say(f"warning: {store.address}: the checkpoint of {member} at step {step} is gone from the mirror")
            continue
        for link in ("latest", "best") if step == kept.best else ("latest",):
            checkpoint.point(folder, link, folder / f"step-{step:08d}")
    sync(folder)
