"""A copy of a run elsewhere: in an object store (``s3://bucket/prefix``) or another folder (``file:///...``).

What a mirror holds is what its manifest lists. That is written last, and what it no longer lists is removed after it:
a copy that is cut short leaves the one before, and no checkpoint stands beside a journal that does not know of it.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
import signal
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, StringConstraints, ValidationError

from trainables.errors import CheckpointCorrupt
from trainables.worker import checkpoint
from tune_rh.errors import PlanError, PreflightRefused, RunMismatch, first_line
from tune_rh.record.events import Event, JobEnded, SessionEnded
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.watch.spared import spared

_MANIFEST = "mirror.json"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0
_LET_GO_S, _CATCH_UP_S = 60.0, 600.0  # how long a session that was stopped, or is finished, waits for its last copy


class Kept(BaseModel):
    """Checkpoints of a member in a mirror: their steps, the newest last, and which of them is the member's best."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: tuple[NonNegativeInt, ...]
    best: NonNegativeInt | None


class Manifest(BaseModel):
    """What a mirror holds.

    Attributes:
        segments: the journal's pieces, by the byte that each begins with.
        size, sha256: of the journal that they make.
        members: by id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    segments: tuple[NonNegativeInt, ...] = ()
    size: NonNegativeInt = 0
    sha256: str = hashlib.sha256().hexdigest()
    members: Mapping[Annotated[str, StringConstraints(pattern=r"^c[0-9]{4,9}-s[0-9]+$")], Kept] = {}


class Store:
    """What lies below an address: files by their names there. Raises OSError where that cannot be reached."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._scheme, self._root = _parse(address)

    @cached_property
    def _files(self) -> Any:
        from pyarrow import fs

        if self._scheme == "file":
            return fs.LocalFileSystem()
        server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        given = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return fs.S3FileSystem(
            region=given or (None if server else fs.resolve_s3_region(self._root.partition("/")[0])),
            endpoint_override=server,
            connect_timeout=5,
            request_timeout=30,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
        )

    def check(self) -> None:
        """Raise `PreflightRefused` unless a file can be written there, read and removed."""
        name = f".probe-{uuid.uuid4().hex}"
        try:
            self.write(name, name.encode())
            found = self.read(name)
            self._files.delete_file(self._at(name))
        except OSError as error:
            raise PreflightRefused(f"--mirror {self.address}: cannot be used ({first_line(error)})") from error
        if found != name.encode():
            raise PreflightRefused(f"--mirror {self.address}: does not give back what is written there")

    def manifest(self) -> Manifest | None:
        """What the mirror of a run there holds; None if there is none.

        Raises:
            RunMismatch: it is not what was written.
        """
        try:
            return Manifest.model_validate_json(self.read(_MANIFEST))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise RunMismatch(f"{self.address}/{_MANIFEST}: is no manifest of a mirror") from error

    def publish(self, manifest: Manifest) -> None:
        """Make ``manifest`` what the mirror holds."""
        self.write(_MANIFEST, manifest.model_dump_json(indent=1).encode())

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with self._files.open_input_stream(self._at(name)) as file:
            content: bytes = file.read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which is there whole or not at all."""
        at = self._at(name)
        # An object appears once its stream is closed; a file is written beside.
        beside = f"{at}.{uuid.uuid4().hex}.tmp" if self._scheme == "file" else at
        with self._opened(beside) as file:
            file.write(content)
        if beside != at:
            self._files.move(beside, at)

    def upload(self, path: Path, name: str) -> None:
        """Copy a file there."""
        with path.open("rb") as source, self._opened(self._at(name)) as file:
            shutil.copyfileobj(source, file, 8 * 2**20)

    def download(self, name: str, path: Path) -> None:
        """Copy a file from there to the new file ``path``."""
        with self._files.open_input_stream(self._at(name)) as source, path.open("xb") as file:
            shutil.copyfileobj(source, file, 8 * 2**20)
            file.flush()
            os.fsync(file.fileno())

    def remove(self, folder: str) -> None:
        """Remove a folder."""
        self._files.delete_dir(self._at(folder))

    def _opened(self, at: str) -> Any:
        if self._scheme == "file":
            self._files.create_dir(posixpath.dirname(at), recursive=True)
        return self._files.open_output_stream(at)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _parse(address: str) -> tuple[str, str]:
    """Scheme and path of an address; raises `PlanError` for one that is none of a mirror."""
    scheme, _, path = address.rstrip("/").partition("://")
    bucket = path.partition("/")[0]
    if (scheme == "s3" and bucket and not {*"@?:"} & {*bucket}) or (scheme == "file" and path.startswith("/")):
        return scheme, path
    raise PlanError(
        f"{address!r}: is no address of a mirror: allowed are s3://bucket/prefix and file:///folder. Credentials, "
        "region and server come from the environment (AWS_PROFILE, AWS_ENDPOINT_URL, ...)"
    )


def run_at(mirror: str, name: str) -> Store:
    """Where the mirror ``mirror`` has the run of that name."""
    return Store(f"{mirror.rstrip('/')}/{name}")


def check_unused(store: Store) -> None:
    """Raise `PreflightRefused` unless the mirror of a new run can be made there."""
    store.check()
    if store.manifest() is not None:
        raise PreflightRefused(
            f"--mirror: {store.address} holds a run already: go on with `tune-rh resume {store.address}`, or choose "
            "another name with --name"
        )


def checkpoint_files(member: str, step: int) -> dict[str, str]:
    """The files of a checkpoint in a mirror, by their names in its folder."""
    names = (checkpoint.WEIGHTS, checkpoint.STATE, checkpoint.INDEX)
    return {name: f"members/{member}/step-{step:08d}/{name}" for name in names}


def segment(start: int) -> str:
    """The file with the piece of the journal that begins with byte ``start``."""
    return f"journal/{start:015d}.jsonl"


@dataclass(frozen=True)
class _Moment:
    """A run between two events: bytes of its journal; its members that are not lost, their steps and who trains."""

    size: int
    steps: Mapping[str, int]
    running: frozenset[str]


class Mirror:
    """Keeps the copy of a run at ``store`` up to date; a watcher of `tune_rh.run.session.Session`.

    A thread copies, at each gate that a member comes to and at the end of the session: of each member that is not lost
    the newest checkpoint at a gate, once it rests the newest one, and the best before it. Whatever fails there, the
    search goes on: it is said once a cause, tried again less and less often, and at the end what is not there is said.

    Raises:
        PreflightRefused: the store cannot be used.
        RunMismatch: another run is there, or this one as it is ahead of its own journal.
    """

    def __init__(self, store: Store, paths: RunPaths, history: History, say: Callable[[str], object]) -> None:
        self._store, self._paths, self._history, self._say = store, paths, history, say
        self._hash = hashlib.sha256()
        store.check()
        found = store.manifest()
        self._is_begun = found is not None
        self._manifest = self._checked(found or Manifest())
        self._moment = self._now()
        self._said: SimpleQueue[str] = SimpleQueue()
        self._told: set[str] = set()
        self._due = Flag()
        self._is_last = self._is_behind = False
        self._thread = Thread(target=self._follow, name="mirror", daemon=True)

    def __call__(self, event: Event) -> None:
        """Have the run copied as it is after this event, if that ends a job or the session."""
        if isinstance(event, JobEnded | SessionEnded):
            self._moment = self._now()
            self._is_last = isinstance(event, SessionEnded)
            self._due.set()
            if self._thread.ident is None:
                self._thread.start()
        if isinstance(event, SessionEnded):
            self._thread.join(_CATCH_UP_S if event.reason == "finished" else _LET_GO_S)
            if self._thread.is_alive() or self._is_behind:
                self._said.put(f"warning: mirror {self._store.address}: {self._missing()} are not in it")
        self._tell()

    def catch_up(self) -> None:
        """Copy a run in which nothing is left to do, now."""
        self._is_last = True
        self._due.set()
        self._follow()
        self._tell()

    def _tell(self) -> None:
        try:
            while True:
                self._say(self._said.get_nowait())
        except Empty:
            return

    def _checked(self, manifest: Manifest) -> Manifest:
        with self._paths.journal.open("rb") as file:
            self._hash.update(file.read(manifest.size))
        if self._hash.hexdigest() != manifest.sha256:
            raise RunMismatch(
                f"--mirror {self._store.address}: holds another run, or more of this one than {self._paths.journal}. "
                f"Choose another address; `tune-rh resume {self._store.address}` goes on from what is there"
            )
        return manifest

    def _now(self) -> _Moment:
        members = [m for c in self._history.candidates.values() for m in c.members.values() if m.step and not m.lost]
        return _Moment(
            self._paths.journal.stat().st_size,
            {str(m.id): m.step for m in members},
            frozenset(map(str, self._history.running)),
        )

    def _follow(self) -> None:
        if self._thread.ident is not None:  # a signal that this thread took would not wake the one that acts on it
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1})
        pause_s = _FIRST_PAUSE_S
        while True:
            self._due.wait(pause_s if self._is_behind else None)
            self._due.clear()
            is_last, self._is_behind = self._is_last, False
            with spared(self._fell_behind):
                self._copy(self._moment)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if self._is_behind else _FIRST_PAUSE_S
            if is_last:
                return

    def _fell_behind(self, why: str) -> None:
        self._is_behind = True
        if why not in self._told:
            self._told.add(why)
            self._said.put(f"warning: mirror {self._store.address}: cannot be written ({why}); the search goes on")

    def _copy(self, moment: _Moment) -> None:
        store, before = self._store, self._manifest
        if not self._is_begun:
            for path in (self._paths.plan, self._paths.provenance, *self._paths.payloads):
                store.upload(path, path.name)
            self._is_begun = True
        members = {name: kept for name in moment.steps if (kept := self._copy_member(name, moment)) is not None}
        manifest, hash_ = before.model_copy(update={"members": members}), self._hash.copy()
        with self._paths.journal.open("rb") as file:
            file.seek(before.size)
            piece = file.read(moment.size - before.size)
        if piece:
            store.write(segment(before.size), piece)
            hash_.update(piece)
            grown = {"segments": (*before.segments, before.size), "size": moment.size, "sha256": hash_.hexdigest()}
            manifest = manifest.model_copy(update=grown)
        if manifest != before:
            store.publish(manifest)
        self._manifest, self._hash = manifest, hash_
        for name, kept in before.members.items():
            for step in {*kept.steps} - {*(members[name].steps if name in members else ())}:
                with suppress(OSError):  # it is in nothing's way
                    store.remove(f"members/{name}/step-{step:08d}")

    def _copy_member(self, name: str, moment: _Moment) -> Kept | None:
        """What a mirror is to have of a member, which it then has."""
        before = self._manifest.members.get(name)
        wanted = self._wanted(name, moment)
        if wanted is None:
            return before
        newest, best = wanted
        there = before.steps if before else ()
        for step in {newest, best or newest} - {*there}:
            folder = self._paths.member(name) / "checkpoints" / f"step-{step:08d}"
            try:
                for file, to in checkpoint_files(name, step).items():
                    self._store.upload(folder / file, to)
            except FileNotFoundError:
                if folder.exists():
                    raise
                return before  # the member has gone on, and has removed it
        # One before the newest stays, for damage; none after it, whose best may be gone.
        older = [step for step in there if step < newest and step != best][-1:]
        return Kept(steps=tuple(sorted({*older, newest, best or newest})), best=best)

    def _wanted(self, name: str, moment: _Moment) -> tuple[int, int | None] | None:
        """The steps of a member's newest checkpoint that is to be mirrored, and of its best one until then.

        The best is None where a member that goes on has removed it: it comes to the better one again.
        """
        plan, heard = self._history.plan, moment.steps[name]
        gates = {stage.until_step for stage in plan.stages}
        # A worker may be ahead of the journal by the interval that it was in when it handed its member back.
        limit = heard if name in moment.running else heard - heard % plan.eval_every + plan.eval_every - 1
        for folder in reversed(checkpoint.steps(self._paths.member(name) / "checkpoints")):
            step = checkpoint.step_of(folder)
            if step > limit or (name in moment.running and step not in gates):
                continue
            try:
                best = int(checkpoint.read_index(folder)["state"]["best_step"])
            except CheckpointCorrupt:
                continue
            kept = self._manifest.members.get(name)
            is_there = (folder.parent / f"step-{best:08d}").exists() or (kept is not None and best in kept.steps)
            return step, best if is_there else None
        return None

    def _missing(self) -> str:
        """What the mirror lacks of the run, in words."""
        moment, manifest = self._moment, self._manifest
        with self._paths.journal.open("rb") as file:
            file.seek(manifest.size)
            lines = file.read(moment.size - manifest.size).count(b"\n")
        behind = 0
        for name in moment.steps:
            wanted, kept = self._wanted(name, moment), manifest.members.get(name)
            behind += wanted is not None and (kept is None or not {*wanted} <= {*kept.steps, None})
        return f"{lines} events and checkpoints of {behind} members"
