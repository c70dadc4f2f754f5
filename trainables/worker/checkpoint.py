"""Checkpoints of one member: weights in safetensors, the rest in a file that torch reads with ``weights_only=True``.

A checkpoint is a folder ``step-<n>`` that appears by one rename, with the SHA-256 of each file beside them.
``latest`` and ``best`` are links. Not here: when to save (`trainables.worker.member`) and what the numbers mean.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables import files
from trainables.errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch
from trainables.worker.savable import unsavable

_CHECKPOINT_SCHEMA = 1
WEIGHTS, STATE, INDEX = "model.safetensors", "state.pt", "checkpoint.json"


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
                torch.save(rest, made / STATE)
                digests = {name: files.sha256(made / name) for name in (WEIGHTS, STATE)}
                index = {"schema": _CHECKPOINT_SCHEMA, "step": step, **facts, "sha256": digests}
                (made / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True))
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
        CheckpointCorrupt: a file is missing, torn or changed.
        CheckpointMismatch: another schema, or another config than ``config_digest``.
    """
    import torch
    from safetensors.torch import load_file

    index = read_index(path)
    if index.get("schema") != _CHECKPOINT_SCHEMA:
        raise CheckpointMismatch(f"{path}: schema {index.get('schema')!r}; this version reads {_CHECKPOINT_SCHEMA}")
    if config_digest is not None and index.get("config_digest") != config_digest:
        raise CheckpointMismatch(
            f"{path}: made with config {index.get('config_digest')}, but the member's config is {config_digest}"
        )
    for name, expected in index["sha256"].items():
        file = path / name
        found = files.sha256(file) if file.is_file() else "missing"
        if found != expected:
            raise CheckpointCorrupt(f"{file}: digest {found[:12]}, recorded {expected[:12]}")
    state = torch.load(path / STATE, weights_only=True, map_location="cpu")
    state["model"] = load_file(path / WEIGHTS)
    return state, index


def read_index(path: Path) -> dict[str, Any]:
    """The JSON facts of a checkpoint; raises `CheckpointCorrupt` if they cannot be read."""
    try:
        index = json.loads((path / INDEX).read_text())
        if not isinstance(index, dict) or not isinstance(index["sha256"], dict):
            raise ValueError("not an index")
    except (OSError, ValueError, KeyError) as error:
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
            os.rename(path, path.with_name(f"corrupt-{path.name}-{os.getpid()}"))
    return None


def steps(folder: Path) -> list[Path]:
    """The checkpoint folders in order of their steps."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def point(folder: Path, name: str, target: Path) -> None:
    """Make the link ``name`` point at ``target`` in one rename."""
    link = files.beside(folder / name)
    link.symlink_to(target.name)
    os.replace(link, folder / name)


def linked(folder: Path, name: str) -> Path | None:
    """What the link ``name`` points at, if it is there."""
    link = folder / name
    return folder / os.readlink(link) if link.is_symlink() and link.exists() else None


def prune(folder: Path, keep_steps: set[int], newest: int = 2) -> None:
    """Remove checkpoints that are neither ``latest`` nor ``best``, nor in ``keep_steps``, nor among the newest."""
    kept = {p for p in (linked(folder, "latest"), linked(folder, "best")) if p}
    paths = steps(folder)
    kept.update(paths[-newest:])
    for path in paths:
        if path not in kept and int(path.name.removeprefix("step-")) not in keep_steps:
            shutil.rmtree(path)
