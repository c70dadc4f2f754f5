"""Where two reports, states or tasks differ, in words; the first places first."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

_DEPTH = 4
_MOST = 3


def differences(a: Any, b: Any, where: str) -> Iterator[str]:
    """Places in which two reports or states differ, NaN being equal to itself; the first places first."""
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{where} is {a.dtype} {tuple(a.shape)}, then {b.dtype} {tuple(b.shape)}"
        elif not _equal(a, b):
            yield f"{where} differs in value"
    elif isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            inside = f"{where}[{key!r}]" if where else str(key)
            if key in a and key in b:
                yield from differences(a[key], b[key], inside)
            else:
                yield f"{inside} is there once only"
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from differences(one, other, f"{where}[{index}]")
    elif not (a == b or (a != a and b != b)):
        yield f"{where} is {_short(a)}, then {_short(b)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _equal(a: Any, b: Any) -> bool:
    import torch

    a, b = a.detach().cpu(), b.detach().cpu()
    if torch.equal(a, b):
        return True
    return bool(a.is_floating_point() and torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True))


def unlike(task: Any, other: Any) -> str:
    """Attributes in which two tasks differ that should not, the first few of them; empty where none can be seen."""
    found = differences(_seen(task, _DEPTH), _seen(other, _DEPTH), "")
    places = [f"self.{place}" for place, _ in zip(found, range(_MOST), strict=False)]
    return "; ".join(places)


_CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, property, staticmethod, classmethod)
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def _seen(value: Any, depth: int) -> Any:
    """What can be compared of a value: numbers, texts, arrays, the states of generators and of what has a state."""
    import numpy as np
    import torch

    if isinstance(value, (*_PLAIN, torch.Tensor)):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return _seen(value.bit_generator.state, depth)
    if isinstance(value, np.random.RandomState):
        return _seen(value.get_state(legacy=False), depth)
    if isinstance(value, _CODE) or depth == 0:
        return None
    if isinstance(value, Mapping):
        return {key: _seen(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_seen(inner, depth - 1) for inner in value]
    if isinstance(value, torch.nn.Module | torch.optim.Optimizer):
        return value.state_dict()
    own = getattr(value, "__dict__", {})
    return {name: _seen(inner, depth - 1) for name, inner in own.items() if not name.startswith("__")}
