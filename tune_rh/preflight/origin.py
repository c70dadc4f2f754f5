"""What a run is made by besides its plan and data: the bounds of its space, torch, and the source of its task. As texts
by what they are of, so that a later session can say what has changed. Nothing heavy is loaded.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from search_spaces.registry import get_space
from trainables.api import Finding
from trainables.given.module import given, given_modules, referenced
from trainables.registry import get_family
from tune_rh.plan.kinds import Search
from tune_rh.plan.schema import Plan
from tune_rh.preflight.inputs import check_space

_SOURCE = "source "
_NOTHING = "nothing"
_OURS = ("tune_rh", "analysis", "search_spaces", "trainables")


def made_by(plan: Plan) -> dict[str, str]:
    """How each name of the space is asked for, torch's version, and a digest of each source file of the family."""
    found = {"torch": version("torch")}
    if isinstance(plan, Search) and plan.space:
        part = f"space {plan.space!r}"
        ways = check_space(part, get_space(plan.family, plan.space), dict).ways
        found |= {f"{part}, {name}": " and as ".join(asked) for name, asked in ways.items()}
    found |= {f"{_SOURCE}{name}": digest for name, digest in sources(plan.family)}
    return found | _written_in(plan.family)


def task_file(family: str) -> Path | None:
    """The file that the task of a family from outside was written in; None where there is none."""
    if given_modules((family,)):
        file = given(family).source[0]
        return Path(file) if file else None
    spec = find_spec(get_family(family).task.partition(":")[0])
    return Path(spec.origin) if spec is not None and spec.origin else None


def _written_in(family: str) -> dict[str, str]:
    """The file that a task given in Python was written in, as it is now; as it was where it is gone."""
    if not given_modules((family,)):
        return {}
    file, digest = given(family).source
    if file and Path(file).is_file():
        digest = _digest(Path(file))
    return {f"{_SOURCE}{file}": digest} if file else {}


def check_origin(was: Mapping[str, str], now: Mapping[str, str]) -> list[Finding]:
    """P45 to P47: what differs from what the run began with; nothing where that is not known."""
    if not was:
        return []
    changed = [part for part in {**was, **now} if was.get(part) != now.get(part)]
    return [
        Finding(_id_of(part), part, f"was {was.get(part, _NOTHING)}, is {now.get(part, _NOTHING)}") for part in changed
    ]


def _id_of(part: str) -> str:
    return "P46" if part == "torch" else "P47" if part.startswith(_SOURCE) else "P45"


def sources(name: str) -> Iterator[tuple[str, str]]:
    """Digests of the sources of a family's config, model and task, by packages, and of what all train with."""
    family = get_family(name)
    files: dict[str, Path] = {}
    named = [*filter(None, (family.config, family.model, family.task)), "trainables.training.step"]
    named += _referenced(name)
    for module in dict.fromkeys(one.partition(":")[0] for one in named):
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            continue
        file, package = Path(spec.origin), spec.parent
        if package:
            files |= {_dotted(package, path, file.parent): path for path in sorted(file.parent.rglob("*.py"))}
        else:
            files[spec.name] = file
    for dotted, path in files.items():
        yield dotted, _digest(path)


def _referenced(family: str) -> list[str]:
    """The user's own modules that a task given in Python imports: its payload holds no code of theirs.

    Not ``__main__``, whose code is in the payload: in another process it is what was started there.
    """
    names = [name for module in given_modules((family,)) for name in referenced(module)]
    return [name for name in names if _is_own(name)]


def _is_own(module: str) -> bool:
    spec = getattr(sys.modules.get(module), "__spec__", None)
    if spec is None or spec.origin is None or module.partition(".")[0] in (*_OURS, "__main__"):
        return False
    installed = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return spec.has_location and not spec.origin.startswith(installed) and "site-packages" not in spec.origin


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _dotted(package: str, path: Path, folder: Path) -> str:
    return ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
