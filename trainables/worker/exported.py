"""An exported config: a folder that stands alone, with weights, config, evidence; and how to use it again.

Written by ``tune-rh export``; read with `trainables.load` (the model) or `evaluate` (the recorded metric again).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainables.api import Split
from trainables.config import first_mistake
from trainables.errors import CheckpointCorrupt
from trainables.files import read_fields, sha256
from trainables.given.module import register
from trainables.registry import build_config, get_family, resolve
from trainables.trust import trust as trust_module
from trainables.trust import trust_signed

EXPORT_SCHEMA = 1
WEIGHTS, STATE, CONFIG, INDEX, CARD = "model.safetensors", "state.pt", "config.toml", "export.json", "README.md"


_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Index(BaseModel):
    """What of ``export.json`` is read again."""

    model_config = ConfigDict(strict=True, frozen=True)

    schema_: Annotated[Literal[1], Field(alias="schema")]
    family: str
    member: Annotated[str, Field(pattern=r"^c\d+-s\d+$")]
    seed: Annotated[int, Field(ge=0)]
    threads: Annotated[int, Field(ge=1, le=4096)]
    config_digest: _Sha256
    weights_sha256: _Sha256
    state_sha256: _Sha256 | None = None
    signature: str | None = None


@dataclass(frozen=True)
class Exported:
    """What an exported folder says of itself: its index, and its config as it is written and as its family built it."""

    folder: Path
    index: Mapping[str, Any]
    fields: dict[str, Any]
    config: Any


def load(folder: str | Path, trust: str | None = None, data_dir: str | Path = "data") -> Any:
    """The exported model: a `torch.nn.Module` in evaluation mode, on the CPU, with its weights.

    A task that was given in Python and has no such model is returned itself, as it was when it was best.

    Args:
        folder: what ``tune-rh export`` wrote.
        data_dir: where data sets lie, for a family whose model only a task can build.
        trust: the module of a family from outside. Without it, only a family that ships with tune-rh, is imported
            already, or comes in an export of this user's own is imported.

    Raises:
        CheckpointCorrupt: a file is missing or its digest differs.
        Untrusted: the export names a family from outside.
    """
    found = read(folder, trust)
    family = get_family(found.index["family"])
    if family.model:
        return _with_weights(resolve(family.model)(found.config), found).eval()
    task = task_of(found, data_dir)
    return getattr(task, "task", task) if task.model is None else task.model.eval()


def evaluate(
    folder: str | Path, split: Split = "val", data_dir: str | Path = "data", trust: str | None = None
) -> Mapping[str, float]:
    """Score the exported model on its data set, on the CPU, with as many threads as when it was recorded.

    Args:
        folder: what ``tune-rh export`` wrote.
        split: which part of the data.
        data_dir: where data sets lie; raises `DataMissing` if the set is not there.
        trust: as for `load`.
    """
    import torch

    found = read(folder, trust)
    task = task_of(found, data_dir)
    threads = torch.get_num_threads()
    # The order of a parallel sum depends on the number of threads.
    torch.set_num_threads(found.index["threads"])
    try:
        metrics: Mapping[str, float] = task.evaluate(split)
    finally:
        torch.set_num_threads(threads)
    return metrics


def read(folder: str | Path, trust: str | None = None) -> Exported:
    """Read what an exported folder says of itself; arguments and errors as for `load`, the weights left unread."""
    path = Path(folder)
    register(path)
    try:
        written = read_fields(path / INDEX, json.loads)
        index = _Index.model_validate(written)
        if trust is not None:
            trust_module(trust)
        trust_signed((index.family,), index.signature)
        fields = read_fields(path / CONFIG, tomllib.loads)
        config = build_config(get_family(index.family), written=[fields])
    except ValidationError as error:
        raise CheckpointCorrupt(f"{path}: is no exported config of this version: {first_mistake(error)}") from error
    except ValueError as error:
        raise CheckpointCorrupt(f"{path}: is no exported config of this version: {error}") from error
    recorded = index.config_digest
    if config.digest() != recorded:
        raise CheckpointCorrupt(f"{path / CONFIG}: was changed: digest {config.digest()}, not {recorded}")
    return Exported(path, written, fields, config)


def task_of(found: Exported, data_dir: str | Path, device: str = "cpu") -> Any:
    """The task of the export, with its weights, and with the rest of its state where that was exported.

    Raises `CheckpointCorrupt`, and DataError where the data set is missing or corrupt.
    """
    index = found.index
    task = resolve(get_family(index["family"]).task)(
        found.config, seed=index["seed"], device=device, data_dir=Path(data_dir).absolute()
    )
    if index.get("state_sha256") is None:
        _with_weights(task.model, found)
    else:
        task.load_state_dict({"model": weights(found), **_state(found.folder / STATE, index["state_sha256"])})
    return task


def weights(export: Exported) -> Mapping[str, Any]:
    """The weights by name; raises `CheckpointCorrupt` if they are not those that were exported."""
    import hashlib

    from safetensors import SafetensorError
    from safetensors.torch import load as load_bytes

    path, expected = export.folder / WEIGHTS, export.index["weights_sha256"]
    if not path.is_file():
        raise CheckpointCorrupt(f"{path}: is not there, or no regular file; export again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != expected:
        raise CheckpointCorrupt(f"{path}: digest differs from {expected}; export again")
    try:
        return load_bytes(data)
    except SafetensorError as error:
        raise CheckpointCorrupt(f"{path}: cannot be read ({error}); export again") from error


def _state(path: Path, expected: str) -> dict[str, Any]:
    import torch

    if not path.is_file() or sha256(path) != expected:
        raise CheckpointCorrupt(f"{path}: is not what was exported; export again")
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state


def _with_weights(model: Any, found: Exported) -> Any:
    try:
        model.load_state_dict(weights(found))
    except RuntimeError as error:
        raise CheckpointCorrupt(f"{found.folder / WEIGHTS}: does not fit its config ({error})") from error
    return model
