"""What a task's state may hold: what ``torch.load(weights_only=True)`` reads back, or the name of what it does not."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

_NUM_SHOWN = 5
PLAIN = (type(None), bool, int, float, complex, str, bytes)
"""Types whose values a checkpoint gives back as they are."""


def unsavable(state: object) -> Iterator[str]:
    """What of ``TrainTask.state_dict()`` a checkpoint cannot give back, each as ``state['key']: reason``; the reason
    names the type. The first few, and whether there is more.
    """
    found = list(islice(_unsavable(state), _NUM_SHOWN + 1))
    yield from found[:_NUM_SHOWN]
    if len(found) > _NUM_SHOWN:
        yield "state has more that a checkpoint cannot give back"


def _unsavable(state: object) -> Iterator[str]:
    if not isinstance(state, Mapping):
        yield f"state_dict() returns {_kind(state)}: allowed is a mapping with the key 'model'"
        return
    if "model" not in state:
        keys = ", ".join(map(repr, state)) or "none"
        yield f"state_dict() has no key 'model', the weights by name; its keys: {keys}"
    for key, value in state.items():
        if not isinstance(key, str):
            yield f"state[{key!r}]: a key is text, not {_kind(key)}"
        yield from _of_model(value) if key == "model" else _lost(value, f"state[{key!r}]")


def _of_model(weights: object) -> Iterator[str]:
    import torch

    if not isinstance(weights, Mapping):
        yield f"state['model'] is {_kind(weights)}: allowed is a mapping of names to tensors"
        return
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            yield f"state['model'][{name!r}] is {_kind(tensor)}: allowed is a tensor, under a name that is text"


def _lost(value: object, where: str, inside: tuple[int, ...] = ()) -> Iterator[str]:
    """``inside``: what holds ``value``, by identity."""
    import torch

    if type(value) in PLAIN or type(value) in (torch.Tensor, torch.nn.Parameter):
        return
    if id(value) in inside:
        yield f"{where} is a part of itself: a checkpoint holds what ends"
        return
    inside = (*inside, id(value))
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():  # type: ignore[attr-defined]
            yield from _lost(key, f"{where}, key {key!r}", inside)
            yield from _lost(item, f"{where}[{key!r}]", inside)
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):  # type: ignore[arg-type]
            yield from _lost(item, f"{where}[{index}]", inside)
    elif not _comes_back(value):
        yield (
            f"{where} is {_kind(value)}: a checkpoint holds tensors, numbers, text, lists and dicts (numpy: "
            "`.tolist()` or `torch.from_numpy`; others: what they are made of)"
        )


def _comes_back(value: object) -> bool:
    import torch

    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError):
        return False
    return True


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
