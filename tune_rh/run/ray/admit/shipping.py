"""A data set of the driver's host goes to nodes by Ray's object store: read once, written once a node."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.errors import DataError
from trainables.files import beside, sha256, sync
from trainables.registry import get_family
from tune_rh.run.runs import data_source

_PIECE = 64 * 2**20


def files_of(family: str, name: str, data_dir: Path) -> dict[str, Path]:
    """The files of a data set that is made, by their places in ``data_dir``.

    Raises:
        DataError: what the family says of its place is no file or folder of its own in there.
    """
    path = data_source(get_family(family)).prepare(name, data_dir)
    if path == data_dir or not path.is_relative_to(data_dir):
        raise DataError(f"--ship-data: data set {name!r} of {family} lies in {path}, no place of its own in {data_dir}")
    # A set that is one file has what is known of it beside it, under its name.
    found = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.stem}.*")
    return {str(file.relative_to(data_dir)): file for file in sorted(found) if file.is_file()}


def ship(nodes: Collection[str], files: Mapping[str, Path], data_dir: Path) -> dict[str, str]:
    """Write ``files`` into ``data_dir`` on the nodes of these ids; why that failed, by node, where it did.

    Nothing is changed where a file of that name is there already.
    """
    remote = ray.remote(num_cpus=0, max_restarts=0)(_Receiver)
    receivers: dict[str, Any] = {
        node: remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(str(data_dir))
        for node in nodes
    }
    lost: dict[str, str] = {}

    def all_do(method: str, *given: object) -> None:
        asked = {node: getattr(receivers[node], method).remote(*given) for node in nodes if node not in lost}
        for node, reference in asked.items():
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                lost[node] = f"cannot be sent the data set: {str(error).strip().splitlines()[-1]}"

    for name, path in files.items():
        for piece in _pieces(path):
            all_do("write", name, ray.put(piece))
    all_do("finish", {name: sha256(path) for name, path in files.items()})
    for receiver in receivers.values():
        ray.kill(receiver)
    return lost


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield file.read(_PIECE)  # of an empty file as well
        while piece := file.read(_PIECE):
            yield piece


class _Receiver:
    """An actor on the node that gets a data set. What it has is in a folder beside until all of it is there."""

    def __init__(self, data_dir: str) -> None:
        self._data_dir = Path(data_dir)
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._folder = beside(self._data_dir / "shipped")

    def write(self, name: str, piece: bytes) -> None:
        """Append a piece of a file."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(piece)

    def finish(self, digests: Mapping[str, str]) -> None:
        """Put the files in their places, if they are what was sent."""
        try:
            for name, digest in digests.items():
                if sha256(self._folder / name) != digest:
                    raise DataError(f"{name} does not arrive as it was sent")
                sync(self._folder / name)
            for name in digests:
                path = self._data_dir / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    os.replace(self._folder / name, path)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
