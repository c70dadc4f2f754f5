"""An exported config: a folder that stands alone, with weights, config, evidence; and how to use it again.

Written by ``tune-rh export``; read with `trainables.load` (the model) or `evaluate` (the recorded metric again).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.api import Split
from trainables.errors import CheckpointCorrupt
from trainables.registry import build_config, get_family, resolve
from trainables.trust import trust as trust_module
from trainables.trust import trust_signed

EXPORT_SCHEMA = 1
WEIGHTS, CONFIG, INDEX, CARD = "model.safetensors", "config.toml", "export.json", "README.md"


@dataclass(frozen=True)
class Exported:
    """What an exported folder says of itself: its index, and its config as it is written and as its family built it."""

    folder: Path
    index: Mapping[str, Any]
    fields: dict[str, Any]
    config: Any


def load(folder: str | Path, trust: str | None = None) -> Any:
    """The exported model: a `torch.nn.Module` in evaluation mode, on the CPU, with its weights.

    Args:
        folder: what ``tune-rh export`` wrote.
        trust: the module of a family from outside. Without it, only a family that ships with tune-rh, is imported
            already, or comes in an export of this user's own is imported.

    Raises:
        CheckpointCorrupt: a file is missing or its digest differs.
        Untrusted: the export names a family from outside.
    """
    found = read(folder, trust)
    model = resolve(get_family(found.index["family"]).model)(found.config)
    model.load_state_dict(weights(found))
    return model.eval()


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
    index = found.index
    task = resolve(get_family(index["family"]).task)(
        found.config, seed=index["seed"], device="cpu", data_dir=Path(data_dir).absolute()
    )
    task.model.load_state_dict(weights(found))
    threads = torch.get_num_threads()
    # The order of a parallel sum depends on the number of threads.
    torch.set_num_threads(index["threads"])
    try:
        metrics: Mapping[str, float] = task.evaluate(split)
    finally:
        torch.set_num_threads(threads)
    return metrics


def read(folder: str | Path, trust: str | None = None) -> Exported:
    """Read what an exported folder says of itself; arguments and errors as for `load`, the weights left unread."""
    path = Path(folder)
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        if index["schema"] != EXPORT_SCHEMA:
            raise CheckpointCorrupt(f"{path / INDEX}: schema {index['schema']}; this version reads {EXPORT_SCHEMA}")
        if trust is not None:
            trust_module(trust)
        trust_signed((index["family"],), index.get("signature"))
        fields = tomllib.loads((path / CONFIG).read_text(encoding="utf-8"))
        config = build_config(get_family(index["family"]), written=[fields])
        recorded = index["config_digest"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointCorrupt(f"{path}: is no exported config of this version ({error})") from error
    if config.digest() != recorded:
        raise CheckpointCorrupt(f"{path / CONFIG}: was changed: digest {config.digest()}, not {recorded}")
    return Exported(path, index, fields, config)


def weights(export: Exported) -> Mapping[str, Any]:
    """The weights by name; raises `CheckpointCorrupt` if they are not those that were exported."""
    import hashlib

    from safetensors.torch import load as load_bytes

    data, expected = (export.folder / WEIGHTS).read_bytes(), export.index["weights_sha256"]
    if hashlib.sha256(data).hexdigest() != expected:
        raise CheckpointCorrupt(f"{export.folder / WEIGHTS}: digest differs from {expected}; export again")
    return load_bytes(data)
