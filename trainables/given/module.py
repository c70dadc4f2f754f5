"""A family made from Python objects as a module in memory, named by the digest of what was handed over.

``given_<digest>:FAMILY`` is then a family like any other. Its payload, pickled with cloudpickle, lies as
``given_<digest>.pkl`` in the folder of the run and in exports. It is unpickled only once its digest is right and its
name is trusted: the file begins with its user's signature, which `register` checks.
"""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from trainables.api import Family, Metric, Split, test_metric
from trainables.errors import DataError, Untrusted
from trainables.files import write_atomic
from trainables.given.config import config_class
from trainables.given.data import GivenData
from trainables.trust import is_trusted, signature, trust, trust_signed, why_not

_NAME = re.compile(r"given_[0-9a-f]{32}")
BASE = SPACE = "base"
"""The one preset, and the one space."""


@dataclass(frozen=True)
class Given:
    """What a family is made from.

    Attributes:
        title: what it is called.
        task: builds a task.
        base: the control's config: a mapping, a dataclass or a pydantic model.
        drawn: examples of what the space draws for each field.
        space: a `search_spaces.api.Space` over the preset ``base``, or None.
        objective, mode: what decides, and which way is better.
        metrics: what else tasks report.
        data: its data source.
        diagnostics: as a family lists them.
        baselines: as a family lists them.
        source: the file that the task was written in, and its digest then; both empty in a notebook.
    """

    title: str
    task: Callable[..., Any]
    base: Any
    drawn: Mapping[str, Sequence[Any]]
    space: Any
    objective: str
    mode: Literal["min", "max"]
    metrics: tuple[Metric, ...]
    data: GivenData
    source: tuple[str, str] = ("", "")
    diagnostics: tuple[Any, ...] = ()
    baselines: tuple[Any, ...] = ()


class GivenTask:
    """A `trainables.api.TrainTask` around a user's task, which need not have a torch model."""

    def __init__(self, task: Any) -> None:
        self.task = task

    @property
    def model(self) -> Any:
        """The task's model; None if it has none."""
        return getattr(self.task, "model", None)

    def step(self) -> Mapping[str, float]:
        """See `trainables.api.TrainTask`."""
        reported: Mapping[str, float] = self.task.step()
        return reported

    def evaluate(self, split: Split = "val") -> Mapping[str, float]:
        """See `trainables.api.TrainTask`."""
        metrics: Mapping[str, float] = self.task.evaluate(split)
        return metrics

    def state_dict(self) -> Any:
        """The task's state, with an empty ``model`` where it has none."""
        state = self.task.state_dict()
        return {"model": {}, **state} if isinstance(state, Mapping) else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand the task the state that it gave."""
        self.task.load_state_dict({name: value for name, value in state.items() if name != "model" or value})


_handed: dict[str, Given] = {}
_files: dict[str, Path] = {}
_payloads: dict[str, bytes] = {}


def hand_over(given: Given) -> str:
    """The reference of the family that is made from ``given``, in this process and wherever its payload is.

    Raises whatever pickling it raises. In this process the objects themselves are used: unpickling would replace the
    methods of a class that was written in a notebook by copies.
    """
    import cloudpickle

    payload = cloudpickle.dumps(given)
    name = _name_of(payload)
    _handed[name], _payloads[name] = given, payload
    trust(name)
    return f"{name}:FAMILY"


def given_modules(references: Iterable[str]) -> list[str]:
    """The names of modules made in memory among ``references``."""
    names = (reference.partition(":")[0] for reference in references)
    return [name for name in dict.fromkeys(names) if _NAME.fullmatch(name)]


def is_payload(file: str) -> bool:
    """Whether a file of that name holds a payload."""
    return file.endswith(".pkl") and _NAME.fullmatch(file[:-4]) is not None


def write_payloads(references: Iterable[str], folder: Path) -> None:
    """Write the payloads that ``references`` need to ``folder``, each signed by this user."""
    for name in given_modules(references):
        signed = signature((name,)) if is_trusted(name) else None
        write_atomic(folder / f"{name}.pkl", f"{signed or ''}\n".encode() + _payload(name))


def register(folder: Path) -> None:
    """Let the payloads in ``folder`` be found; those that this user signed are trusted."""
    if not folder.is_dir():
        return
    for file in folder.glob("given_*.pkl"):
        if is_payload(file.name):
            if file.stem not in _files or not _files[file.stem].is_file():
                _files[file.stem] = file
            if not is_trusted(file.stem):
                trust_signed((file.stem,), _read(file)[0])


def given(reference: str) -> Given:
    """What the family ``reference`` was made from.

    Raises:
        ImportError: its payload is not there, is not what it was, or cannot be unpickled here.
        Untrusted: it is another user's.
    """
    name = reference.partition(":")[0]
    if name not in _handed:
        if not is_trusted(name):
            raise Untrusted(why_not(name))
        payload = _payload(name)
        try:
            found = pickle.loads(payload)
        except (pickle.PickleError, AttributeError, EOFError, TypeError, ValueError) as error:
            raise ImportError(f"{name}.pkl: cannot be unpickled ({error})") from error
        if not isinstance(found, Given):
            raise ImportError(f"{name}.pkl: holds a {type(found).__name__}")
        _handed[name] = found
    return _handed[name]


def called(reference: str) -> str:
    """How people know a family: as its class is called where it was given in Python, else by its name."""
    try:
        return given(reference).title if given_modules((reference,)) else reference
    except (ImportError, Untrusted):
        return reference


def is_typed(reference: str) -> bool:
    """Whether the code of a family's task is in its payload, because it could not be imported."""
    return bool(given_modules((reference,))) and getattr(given(reference).task, "__module__", "__main__") == "__main__"


def referenced(reference: str) -> list[str]:
    """The modules that a family's payload names: code that it does not hold itself."""
    given(reference)  # which imports them
    opcodes = pickletools.genops(_payload(reference.partition(":")[0]))
    texts = dict.fromkeys(argument for _, argument, _ in opcodes if isinstance(argument, str))
    return [text for text in texts if text in sys.modules]


def _payload(name: str) -> bytes:
    if name not in _payloads:
        file = _files.get(name)
        if file is None:
            raise ImportError(f"{name}.pkl is in no folder that was opened")
        payload = _read(file)[1]
        if _name_of(payload) != name:
            raise ImportError(f"{file}: was changed: its digest is that of {_name_of(payload)}")
        _payloads[name] = payload
    return _payloads[name]


def _name_of(payload: bytes) -> str:
    return f"given_{hashlib.sha256(payload).hexdigest()[:32]}"


def _read(file: Path) -> tuple[str, bytes]:
    """The signature in front, and the payload."""
    signed, _, payload = file.read_bytes().partition(b"\n")
    return signed.decode("ascii", "replace"), payload


def _parts(name: str, given: Given) -> dict[str, Any]:
    """What stands in the module of a family."""
    config = config_class("Config", name, given.base, given.drawn)

    def build(config: Any, *, seed: int, device: str, data_dir: Path) -> GivenTask:
        return GivenTask(given.task(config.handed(), seed=seed, device=device, data_dir=given.data.found(data_dir)))

    objective = Metric(given.objective, given.mode, "", "decides")
    test = Metric(test_metric(given.objective), given.mode, "", "the same on test")
    family = Family(
        name=given.title,
        summary=f"made from {given.title}",
        config=f"{name}:Config",
        model="",
        task=f"{name}:TASK",
        data=f"{name}:DATA",
        dataset=given.data.name,
        objective=objective,
        metrics=(objective, test, *given.metrics),
        presets={BASE: {}},
        spaces=f"{name}:SPACES",
        diagnostics=f"{name}:DIAGNOSTICS" if given.diagnostics else "",
        baselines=f"{name}:BASELINES" if given.baselines else "",
    )

    def measured(dataset: str, data_dir: Path, **facts: Any) -> list[Any]:
        found = given.data.found(data_dir)
        return [row for baseline in given.baselines for row in baseline(dataset, found, **facts)]

    own = {"DIAGNOSTICS": given.diagnostics, "BASELINES": measured}
    spaces = {} if given.space is None else {SPACE: given.space}
    return {"FAMILY": family, "Config": config, "TASK": build, "DATA": given.data, "SPACES": spaces, **own}


class _Loader:
    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType | None:
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        try:
            vars(module).update(_parts(module.__name__, given(module.__name__)))
        except DataError as error:
            raise ImportError(str(error)) from error


class _Finder:
    """Finds the modules of `hand_over` and `register`, and nothing else."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if _NAME.fullmatch(name) and (name in _handed or name in _files):
            return ModuleSpec(name, _Loader())  # type: ignore[arg-type]
        return None


sys.meta_path.append(_Finder)
