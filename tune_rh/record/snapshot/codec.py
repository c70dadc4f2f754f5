"""A history as plain data: objects as rows of JSON, columns of numbers as they lie in memory.

Only the classes that are named here are made, and none of their code runs: reading imports and executes nothing. What
`unpack` gives equals what `pack` was given, object for object: one that stands in two places is one again.
"""

from __future__ import annotations

import json
import math
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from analysis.stats.agreement import Agreement, LearnedShare
from analysis.stats.scores import SeedScores
from analysis.stats.seeds import Prior
from analysis.view import Decision
from trainables.worker.report import HealthFinding, Message
from tune_rh.plan.schema import Plan
from tune_rh.plan.stages import GateTerms
from tune_rh.record.events import MemberId, decode, encode
from tune_rh.record.failure import Losses
from tune_rh.record.gate import Gate, Rank
from tune_rh.record.history import History
from tune_rh.record.members import Candidate, Member, Pending, Reports
from tune_rh.record.rules import Curve, Metrics

_OBJECTS = (History, Candidate, Member, Curve, Metrics, Reports, Gate, SeedScores, LearnedShare, Losses)
"""Classes whose objects change: each is written once, with all its attributes."""
_RECORDS = (MemberId, Rank, Pending, Prior, Agreement, Decision, HealthFinding)
"""Classes whose objects are but their fields."""
(
    _LIST, _TUPLE, _DICT, _SET, _COUNTER, _COUNTERS, _ARRAY, _COLUMN, _OBJECT, _EVENT, _PLAN, _TERMS, _RECORD,
) = range(13)  # fmt: skip
_COLUMN_KINDS: Mapping[type, str] = {float: "d", int: "q"}
_FEWEST_IN_COLUMN = 4
_TOGETHER, _PAUSE_S = 200, 1e-4
"""So many objects are packed before other threads have their turn: a report must not wait for all of them."""


def pack(history: History) -> tuple[list[str], list[bytes]]:
    """A history as lines of JSON, and as the columns that they refer to."""
    packer = _Packer(history)
    return list(packer.lines()), packer.columns


def unpack(text: str, numbers: memoryview, plan: Plan) -> History:
    """The inverse of `pack`.

    Args:
        text: the lines.
        numbers: the columns, joined.
        plan: of the run, as its journal began.

    Raises:
        ValueError, LookupError, TypeError: it is not what `pack` gave.
    """
    return _Unpacker(numbers, plan).history(text)


class _Packer:
    def __init__(self, history: History) -> None:
        self.columns: list[bytes] = []
        self._num_bytes = 0
        self._plan = history.plan
        self._queue: list[Any] = []
        self._number: dict[int, int] = {}
        self._names: dict[type, tuple[str, ...]] = {kind: () for kind in _OBJECTS}
        self._reference(history)

    def lines(self) -> Iterator[str]:
        """The plan, then each object: its class, and the values of its attributes in the order of their names."""
        yield json.dumps(self._plan.model_dump(mode="json"))
        for done, value in enumerate(self._queue):  # which grows as objects refer to others
            if done % _TOGETHER == 0:
                time.sleep(_PAUSE_S)
            yield json.dumps([_OBJECTS.index(type(value)), *map(self._pack, _attributes(value).values())])
        yield json.dumps({kind.__name__: names for kind, names in self._names.items()})

    def _reference(self, value: Any) -> list[Any]:
        if id(value) not in self._number:
            names = tuple(_attributes(value))
            if self._names[type(value)] not in ((), names):
                raise TypeError(f"{type(value).__name__}: its objects have different attributes")
            self._names[type(value)] = names
            self._number[id(value)] = len(self._queue)
            self._queue.append(value)
        return [_OBJECT, self._number[id(value)]]

    def _pack(self, value: Any) -> Any:
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind in self._names:
            return self._reference(value)
        if kind in _RECORDS:
            fields = value if isinstance(value, tuple) else _attributes(value).values()
            return [_RECORD, _RECORDS.index(kind), *map(self._pack, fields)]
        if kind is list:
            return self._list(value)
        if kind is tuple:
            return [_TUPLE, *map(self._pack, value)]
        if kind is set:
            return [_SET, *map(self._pack, value)]
        if kind is array:
            return self._column(_ARRAY, value)
        if kind is GateTerms:
            return [_TERMS, next(k for k in range(len(self._plan.stages)) if self._plan.gate(k) == value)]
        if isinstance(value, Mapping):
            code = _COUNTERS if kind is defaultdict else _COUNTER if kind is Counter else _DICT
            return [code, *(self._pack(part) for item in value.items() for part in item)]
        if isinstance(value, Message):
            return [_EVENT, encode(value)]  # type: ignore[arg-type]
        if isinstance(value, Plan):
            return [_PLAN]
        raise TypeError(f"{kind.__name__}: is nothing that a history holds")

    def _list(self, value: list[Any]) -> list[Any]:
        kinds = set(map(type, value)) if len(value) >= _FEWEST_IN_COLUMN else set()
        code = _COLUMN_KINDS.get(kinds.pop()) if len(kinds) == 1 else None
        return [_LIST, *map(self._pack, value)] if code is None else self._column(_COLUMN, array(code, value))

    def _column(self, code: int, column: array[Any]) -> list[Any]:
        start = self._num_bytes
        self.columns.append(column.tobytes())
        self._num_bytes += len(self.columns[-1])
        return [code, column.typecode, start, self._num_bytes]


class _Unpacker:
    def __init__(self, numbers: memoryview, plan: Plan) -> None:
        self._numbers, self._plan = numbers, plan
        self._objects: list[Any] = []

    def history(self, text: str) -> History:
        fields, *rows, names = map(_read_json, text.splitlines())
        if fields != self._plan.model_dump(mode="json"):
            self._plan = self._plan.with_changes(fields)
        names_of = [names[kind.__name__] for kind in _OBJECTS]
        # All are there before any is filled: they refer to each other.
        self._objects = [(kind := _OBJECTS[row[0]]).__new__(kind) for row in rows]
        for value, row in zip(self._objects, rows, strict=True):
            for name, part in zip(names_of[row[0]], islice(row, 1, None), strict=True):
                setattr(value, name, self._unpack(part) if type(part) is list else part)
        history = self._objects[0]
        if not isinstance(history, History):
            raise TypeError("begins with no history")
        return history

    def _unpack(self, value: Any) -> Any:
        if type(value) is not list:
            return value
        code = value[0]
        if code == _OBJECT:
            return self._objects[value[1]]
        if code in (_ARRAY, _COLUMN):
            column = array(value[1])
            column.frombytes(self._numbers[value[2] : value[3]])
            return column if code == _ARRAY else column.tolist()
        if code == _EVENT:
            return decode(value[1])
        if code == _PLAN:
            return self._plan
        if code == _TERMS:
            return self._plan.gate(value[1])
        parts = [self._unpack(part) if type(part) is list else part for part in value[1:]]
        if code == _LIST:
            return parts
        if code == _RECORD:
            return _RECORDS[parts[0]](*parts[1:])
        if code in (_TUPLE, _SET):
            return tuple(parts) if code == _TUPLE else set(parts)
        items: dict[Any, Any] = dict(zip(parts[::2], parts[1::2], strict=True))
        return Counter(items) if code == _COUNTER else defaultdict(Counter, items) if code == _COUNTERS else items


_SCALARS = frozenset({type(None), bool, int, float, str})
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_read_json = json.JSONDecoder(parse_constant=_NUMBERS.__getitem__).decode


def _attributes(value: Any) -> Mapping[str, Any]:
    slots = getattr(type(value), "__slots__", None)
    return vars(value) if slots is None else {name: getattr(value, name) for name in slots}
