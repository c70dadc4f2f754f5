"""A base class for tasks of one's own whose state is what their attributes hold."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel

from trainables.worker.savable import PLAIN

_CONSTANT = (
    type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, PurePath, range, slice, torch.device, torch.dtype,
)  # fmt: skip
_KIND, _STATE = "kind", "state"


class Task:
    """A task that need not write ``state_dict`` and ``load_state_dict``: its state is what its attributes hold.

    Saved are modules, optimisers, schedulers, loaders and whatever else has both methods; generators of torch, numpy
    and Python; tensors and arrays; numbers and text; and lists, tuples, dicts, dataclasses and pydantic models of
    these. Functions, classes, modules and paths are taken to be the same in each object. Anything else is refused by
    name, so that nothing is left out in silence.

    A task that draws from a global generator, as dropout does, has to save that generator's state itself.

    Attributes:
        constants: names of attributes that training does not change, such as data; they are not saved.
    """

    constants: ClassVar[Sequence[str]] = ()

    def state_dict(self) -> dict[str, Any]:
        """What the attributes hold, as tensors, numbers, text, lists, tuples and dicts.

        Raises:
            TypeError: by name, an attribute of a kind that cannot be saved, or constants that are none.
        """
        state = {name: _saved(value, (type(self).__name__, name)) for name, value in self._kept()}
        return {
            name: value[_STATE] if name == "model" and _is_object(value) else value for name, value in state.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give the attributes what they held: objects and tensors are filled in place, others replaced.

        Raises:
            TypeError: by name, an attribute that `__init__` does not make as it was when it was saved.
        """
        has = dict(self._kept())
        for name, saved in state.items():
            if name == "model":
                self.model.load_state_dict(saved)  # type: ignore[attr-defined]
            else:
                setattr(self, name, _filled(has.get(name), saved, (type(self).__name__, name)))

    def _kept(self) -> Iterator[tuple[str, Any]]:
        unknown = [self.constants] if isinstance(self.constants, str) else [*{*self.constants} - vars(self).keys()]
        if unknown:
            raise TypeError(
                f"{type(self).__name__}.constants = {self.constants!r}: allowed are a list or a tuple of names, which "
                f"are of {', '.join(vars(self))}"
            )
        for name, value in vars(self).items():
            if name not in self.constants and not isinstance(value, _CONSTANT):
                yield name, value


def _saved(value: Any, place: Sequence[Any]) -> Any:
    """What a checkpoint holds of ``value``: itself where it can be made again, else its kind and its state."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, _CONSTANT):
        return None
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is torch.Tensor:
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(_saved(part, (*place, i)) for i, part in enumerate(value))
    if type(value) is dict:
        return {key: _saved(part, (*place, key)) for key, part in value.items()}
    return {_KIND: type(value).__name__, _STATE: _state(value, place)}


def _is_object(saved: Any) -> bool:
    """Whether it is the kind and the state of an object."""
    return type(saved) is dict and saved.keys() == {_KIND, _STATE}


def _state(value: Any, place: Sequence[Any]) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.random.Generator):
        return _saved(value.bit_generator.state, place)
    if isinstance(value, random.Random):
        return value.getstate()
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return value.state_dict()
    if is_dataclass(value) or isinstance(value, BaseModel):
        return {name: _saved(part, (*place, name)) for name, part in vars(value).items()}
    raise TypeError(
        f"{_said(place)}: cannot be saved: a {type(value).__name__} has no state_dict and load_state_dict. If training "
        f"does not change it, the class says so: constants = ({place[1]!r},)"
    )


def _filled(value: Any, saved: Any, place: Sequence[Any]) -> Any:
    """What was saved, in ``value`` where that is an object."""
    if isinstance(value, _CONSTANT):
        return value
    if _is_object(saved):
        if type(value).__name__ != saved[_KIND]:
            raise TypeError(
                f"{_said(place)}: was a {saved[_KIND]} when it was saved, and __init__ makes it a "
                f"{type(value).__name__}; allowed is the same"
            )
        return _fill(value, saved[_STATE], place)
    if type(saved) is torch.Tensor and type(value) is torch.Tensor and value.shape == saved.shape:
        return _copied(value, saved)
    if type(saved) in (list, tuple):
        has = value if type(value) is type(saved) else ()
        parts = (_filled(has[i] if i < len(has) else None, part, (*place, i)) for i, part in enumerate(saved))
        return type(saved)(parts)
    if type(saved) is dict:
        has = value if type(value) is dict else {}
        return {key: _filled(has.get(key), part, (*place, key)) for key, part in saved.items()}
    return saved.clone() if type(saved) is torch.Tensor else saved


def _fill(value: Any, state: Any, place: Sequence[Any]) -> Any:
    if isinstance(value, torch.Generator):
        value.set_state(state)
    elif isinstance(value, torch.Tensor):
        _copied(value, state)
    elif isinstance(value, np.ndarray):
        return state.numpy().copy()
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = _arrays(state)
    elif isinstance(value, random.Random):
        value.setstate(state)
    elif hasattr(value, "load_state_dict"):
        value.load_state_dict(state)
    else:
        for name, saved in state.items():
            vars(value)[name] = _filled(vars(value).get(name), saved, (*place, name))
    return value


def _copied(value: torch.Tensor, saved: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return value.copy_(saved)


def _arrays(state: Any) -> Any:
    """The state of a bit generator of numpy, arrays as arrays again."""
    if _is_object(state):
        return state[_STATE].numpy()
    return {name: _arrays(part) for name, part in state.items()} if type(state) is dict else state


def _said(place: Sequence[Any]) -> str:
    owner, name, *inside = place
    return f"{owner}.{name}" + "".join(f"[{part!r}]" for part in inside)
