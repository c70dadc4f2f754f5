"""Checkpoints of one member: weights in safetensors, the rest in a file that torch reads with ``weights_only=True``.

A checkpoint is a folder ``step-<n>`` that appears by one rename. Its index holds the SHA-256 of each file, and its own.
``latest`` and ``best`` are links. Not here: when to save (`trainables.worker.member`) and what the numbers mean.
"""

from __future__ import annotations

import errno
import json
import os
import re
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables import files
from trainables.config import canonical_digest
from trainables.errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch
from trainables.worker.savable import unsavable

_CHECKPOINT_SCHEMA = 1
WEIGHTS, STATE, INDEX = "model.safetensors", "state.pt", "checkpoint.json"
_STEP = re.compile(r"step-(\d{8,})", re.ASCII)


def save(folder: Path, step: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> Path:
    """Write ``state`` as ``folder/step-<step>`` and point ``latest`` at it; an existing one is left as it is.

    ``facts`` are small JSON values that are kept in the index: family, config digest, metrics.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = folder / f"step-{step:08d}"
    if not target.exists():
        lost = list(unsavable(state))
        if lost:
            raise CheckpointError(f"{target}: cannot be written, for it could not be read: {'; '.join(lost)}")
        rest = {key: value for key, value in state.items() if key != "model"}
        # Tied weights are stored once each: safetensors refuses tensors that share memory.
        weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state["model"].items()}
        try:
            with files.new_folder(target) as made:
                save_file(weights, made / WEIGHTS)
                with (made / STATE).open("xb") as file:  # given a path, torch does not tell the number of an error
                    torch.save(rest, file)
                digests = {name: files.sha256(made / name) for name in (WEIGHTS, STATE)}
                index = {"schema": _CHECKPOINT_SCHEMA, "step": step, **facts, "sha256": digests}
                index["digest"] = canonical_digest(index)
                (made / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True), encoding="utf-8")
        except (OSError, RuntimeError, SafetensorError) as error:
            # Neither safetensors nor torch says OSError when a disk is full.
            raise CheckpointError(
                f"{target}: cannot be written ({error}); earlier checkpoints are untouched"
            ) from error
    point(folder, "latest", target)
    return target


def load(path: Path, *, config_digest: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read one checkpoint folder after checking its digests. Returns (state, index).

    Raises:
        CheckpointCorrupt: a file is missing, torn or changed, or the disk cannot give it back.
        CheckpointMismatch: another schema, or another config than ``config_digest``.
        CheckpointError: what was written cannot be loaded, such as a state with objects of other classes than torch's.
    """
    index = read_index(path)
    if index.get("schema") != _CHECKPOINT_SCHEMA:
        raise CheckpointMismatch(f"{path}: schema {index.get('schema')!r}; this version reads {_CHECKPOINT_SCHEMA}")
    if config_digest is not None and index.get("config_digest") != config_digest:
        raise CheckpointMismatch(
            f"{path}: made with config {index.get('config_digest')}, but the member's config is {config_digest}"
        )
    for name in (WEIGHTS, STATE):
        file, expected = path / name, index["sha256"].get(name, "none")
        found = _sha256(file) if file.is_file() else "missing"
        if found != expected:
            raise CheckpointCorrupt(f"{file}: digest {found[:12]}, recorded {str(expected)[:12]}")
    return _read_state(path), index


def _read_state(path: Path) -> dict[str, Any]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as load_bytes
    from safetensors.torch import load_file

    weights = path / WEIGHTS
    try:
        with _readable(path / STATE):
            state: dict[str, Any] = torch.load(path / STATE, weights_only=True, map_location="cpu")
        # safetensors maps only files whose path is UTF-8; any other is read as a whole.
        state["model"] = load_file(weights) if _is_utf8(weights) else load_bytes(weights.read_bytes())
    except FileNotFoundError as error:
        # safetensors says so of any file that it cannot open, and this one's digest was right just now.
        raise CheckpointCorrupt(f"{weights}: cannot be read") from OSError(errno.EIO, f"cannot be opened: {error}")
    except (pickle.UnpicklingError, RuntimeError, SafetensorError, TypeError) as error:
        if os.strerror(errno.EIO) in str(error):
            raise CheckpointCorrupt(f"{path}: cannot be read ({error})") from error
        raise CheckpointError(f"{path}: cannot be loaded ({error})") from error
    return state


def _is_utf8(path: Path) -> bool:
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True


def read_index(path: Path) -> dict[str, Any]:
    """The JSON facts of a checkpoint; raises `CheckpointCorrupt` if they are not those that were written."""
    try:
        index = json.loads(_content(path / INDEX))
        if not isinstance(index, dict) or not isinstance(index.get("sha256"), dict):
            raise ValueError("not an index")
        if index.pop("digest", "none") != canonical_digest(index):
            raise ValueError("does not fit its digest")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{path / INDEX}: cannot be read ({error})") from error
    return index


def load_latest(folder: Path, *, config_digest: str | None = None) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The newest sound checkpoint of ``folder``, or None if there is none.

    A corrupt one is passed over for the one before, with a warning that names both; it is set aside as ``corrupt-*``
    so that the step can be saved again.
    """
    paths = steps(folder)
    for i, path in enumerate(reversed(paths)):
        try:
            return load(path, config_digest=config_digest)
        except CheckpointCorrupt as error:
            before = paths[-2 - i] if i + 1 < len(paths) else None
            warnings.warn(
                f"checkpoint {path} is corrupt ({error}); going back to {before or 'the beginning: none is before it'}",
                stacklevel=2,
            )
            _set_aside(path, "corrupt")
    return None


def set_aside_after(folder: Path, step: int) -> list[int]:
    """Rename checkpoints beyond ``step`` to ``ahead-*``; their steps."""
    ahead = [path for path in steps(folder) if step_of(path) > step]
    for path in ahead:
        _set_aside(path, "ahead")
    return [step_of(path) for path in ahead]


def _set_aside(path: Path, why: str) -> None:
    os.rename(path, path.with_name(f"{why}-{path.name}-{uuid.uuid4().hex[:8]}"))


def steps(folder: Path) -> list[Path]:
    """The checkpoint folders in order of their steps."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if _STEP.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """The optimiser step of a checkpoint folder."""
    return int(path.name.removeprefix("step-"))


def point(folder: Path, name: str, target: Path) -> None:
    """Make the link ``name`` point at ``target`` in one rename."""
    link = files.beside(folder / name)
    try:
        link.symlink_to(target.name)
        os.replace(link, folder / name)
        files.sync(folder)
    finally:
        link.unlink(missing_ok=True)


def linked(folder: Path, name: str) -> Path | None:
    """The checkpoint that the link ``name`` points at, if it is there."""
    link = folder / name
    target = os.readlink(link) if link.is_symlink() else ""
    return folder / target if _STEP.fullmatch(target) and link.exists() else None


def prune(folder: Path, keep_steps: set[int], newest: int = 2) -> None:
    """Remove checkpoints that are neither ``latest`` nor ``best``, nor in ``keep_steps``, nor among the newest."""
    kept = {p for p in (linked(folder, "latest"), linked(folder, "best")) if p}
    paths = steps(folder)
    kept.update(paths[-newest:])
    for path in paths:
        if path not in kept and step_of(path) not in keep_steps:
            files.remove_folder(path)


def _sha256(path: Path) -> str:
    with _readable(path):
        return files.sha256(path)


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ValueError("no regular file")
    with _readable(path):
        return path.read_bytes()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise `CheckpointCorrupt` where the disk has lost what it was given: a bad sector is damage."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO:
            raise CheckpointCorrupt(f"{path}: cannot be read ({error.strerror})") from error
        raise
