"""What each node of a cluster that was joined is, before a job finds out: one task a node looks from there.

Not here: how many jobs a node takes (`tune_rh.run.ray.cluster`).
"""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.api import Finding
from tune_rh.plan.schema import Plan
from tune_rh.preflight.checks import MIN_FREE_DISK, room
from tune_rh.preflight.environment import size
from tune_rh.run.ray.admit.shipping import files_of, ship
from tune_rh.run.ray.nodes import ClusterNode, answers
from tune_rh.run.runs import dataset

_ANSWER_S = 120.0  # a worker is started on the node for it, which a busy one takes its time for
_DRIVER = "driver"


@dataclass(frozen=True)
class View:
    """What a node sees.

    Attributes:
        versions: of python, torch, ray and tune-rh.
        sees, arrives: what it reads in the driver's file below the run's folder, and the driver in its.
        storage: why it could not read or write there; empty where it could.
        sources: a digest of each source file of the family, ``digest`` that of the data set.
        code, data: why the family cannot be imported, or its data set not be read; empty where they can.
        lacks_data: whether the data set is not there at all.
        free: bytes where runs lie, and in its temporary folder.
    """

    versions: Mapping[str, str]
    sees: str = ""
    storage: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    digest: str = ""
    data: str = ""
    lacks_data: bool = False
    free: Mapping[str, int] = field(default_factory=dict)
    arrives: str = ""


class Probe:
    """Looks at nodes of the connected cluster from where they are.

    Args:
        plan: whose family and data set jobs need.
        folder: of the run; each node writes a file in it, which is removed again.
        data_dir: where data sets lie.
        ship: bring the data set to nodes that have not got it, and take each word about that to ``say``.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        data_dir: Path,
        *,
        ship: bool = False,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._plan, self._folder, self._data_dir, self._ship, self._say = plan, folder, data_dir, ship, say

    def __call__(self, nodes: Collection[ClusterNode]) -> list[Finding]:
        """What speaks against jobs on those nodes that have room for one and are still there, all of them at once."""
        usable = {node.id: node for node in nodes if room(self._plan.resources, [node.capacity])}
        token, place = secrets.token_hex(16), Path(tempfile.mkdtemp(prefix=".probe-", dir=self._folder))
        try:
            place.chmod(0o777)  # a node may write it as another user
            (place / _DRIVER).write_text(token, encoding="utf-8")
            given = (str(place), token, self._plan.family, dataset(self._plan), str(self._data_dir))
            here = View(**_look(_DRIVER + "-itself", *given))
            views = _asked(usable, given)
            lacking = [key for key, view in views.items() if isinstance(view, dict) and view.get("lacks_data")]
            if self._ship and lacking and here.digest:
                views |= self._shipped([usable[key] for key in lacking], given)
            arrived = {key: _read(place / key) for key in usable}
        finally:
            shutil.rmtree(place, ignore_errors=True)
        found: list[Finding] = []
        for key, node in usable.items():
            view = views.get(key)
            if isinstance(view, dict):
                seen = View(**view, arrives=arrived[key])
                found += findings(str(node), seen, here, token=token, folder=self._folder)
            elif view is None or answers(key):  # a node that went away meanwhile takes no job either
                found.append(Finding("P86", str(node), view or f"does not answer within {_ANSWER_S:.0f} s"))
        return found

    def _shipped(self, nodes: Sequence[ClusterNode], given: Sequence[str]) -> dict[str, dict[str, Any] | str]:
        """What nodes see once the data set was brought to them."""
        name = dataset(self._plan)
        files = files_of(self._plan.family, name, self._data_dir)
        self._say(f"Data set {name!r} goes to {', '.join(node.name for node in nodes)}")
        lost = ship([node.id for node in nodes], files, self._data_dir)
        return {**_asked([node.id for node in nodes if node.id not in lost], given), **lost}


def findings(title: str, view: View, here: View, *, token: str, folder: Path) -> Iterator[Finding]:
    """P81 to P85: what speaks against jobs on one node, by what it and the driver's own host see."""
    common = f"{folder}: all nodes need the folder of the run, on storage that they share (--runs-dir)"
    if view.storage or view.sees != token:
        yield Finding("P81", title, f"cannot use {common}; there: {view.storage or 'another folder of that name'}")
    elif view.arrives != token:
        yield Finding("P81", title, f"what it writes does not arrive in {common}")
    for name, version in here.versions.items():
        if view.versions.get(name) != version:
            yield Finding("P82", title, f"has {name} {view.versions.get(name) or 'none'}; this host has {version}")
    if view.code:
        yield Finding("P83", title, f"cannot import what a job needs: {view.code}")
    else:
        changed = sorted(
            name for name in {**here.sources, **view.sources} if here.sources.get(name) != view.sources.get(name)
        )
        if changed:
            yield Finding("P83", title, f"has another source of {', '.join(changed)}")
        if view.data or view.digest != here.digest:
            why = view.data or f"its digest is {view.digest}, here it is {here.digest}"
            yield Finding(
                "P84", title, f"has not the data set: {why}. All nodes need it, in the same --data-dir, or --ship-data"
            )
    for place, free in view.free.items():
        if free < MIN_FREE_DISK:
            yield Finding(
                "P85", title, f"{size(free)} are free in {place}; allowed is {size(MIN_FREE_DISK)} at the least"
            )


def _asked(nodes: Collection[str], given: Sequence[str]) -> dict[str, dict[str, Any] | str]:
    """What `_look` returns on each node, or why it returns nothing; nodes that do not answer are left out."""
    # As a value: a node need not have this module, and is then told of as one that has not.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    try:
        look = ray.remote(num_cpus=0, max_retries=0)(_look)
        asked = {
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False)).remote(
                name, *given
            ): name
            for name in nodes
        }
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S) if asked else ([], [])
    views: dict[str, dict[str, Any] | str] = {}
    for reference in answered:
        try:
            views[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayError as error:
            views[asked[reference]] = f"cannot run a task: {str(error).strip().splitlines()[-1]}"
    return views


def _look(name: str, place: str, token: str, family: str, data: str, data_dir: str) -> dict[str, Any]:
    """The fields of a `View`, on the node where this runs, which may have nothing of ours: it imports what it needs."""
    import platform
    import shutil
    import tempfile
    import traceback
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    found: dict[str, Any] = {"versions": {"python": platform.python_version()}, "free": {}}
    for package in ("torch", "ray", "tune-rh"):
        try:
            # The build ("+cu130") differs between machines with a GPU and without.
            found["versions"][package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            found["versions"][package] = ""
    try:
        found["sees"] = (Path(place) / "driver").read_text(encoding="utf-8")
        (Path(place) / name).write_text(token, encoding="utf-8")
        found["free"][str(Path(place).parent)] = shutil.disk_usage(place).free
    except (OSError, ValueError) as error:
        found["storage"] = getattr(error, "strerror", None) or str(error)
    found["free"][tempfile.gettempdir()] = shutil.disk_usage(tempfile.gettempdir()).free
    part = "code"
    try:
        from trainables.given.module import register
        from trainables.registry import get_family
        from trainables.trust import trust
        from tune_rh.preflight.origin import sources
        from tune_rh.run.runs import digest_of

        trust(family)  # the driver has decided
        register(Path(place).parent)
        known = get_family(family)
        found["sources"] = dict(sources(family))
        part = "data"
        found["digest"] = digest_of(known, data, Path(data_dir))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's: it becomes a finding
        found[part] = traceback.format_exception_only(error)[-1].strip()
        found["lacks_data"] = part == "data" and type(error).__name__ == "DataMissing"
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
