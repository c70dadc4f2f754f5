"""What a search space is: a function that draws one config from a trial. Standard library only.

A `Trial` is what Optuna gives (and what anything with its three methods gives); `ReplayTrial` answers from a config
instead, to tell whether it lies inside a space, and `RandomTrial` draws from a seed, for tests.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Choice = str | int | float | bool | None


class Trial(Protocol):
    """The part of an Optuna trial that spaces use."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from ``low`` to ``high``, both included."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """An integer from ``low`` to ``high``, both included, in steps of ``step`` from ``low``."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of ``choices``."""
        ...


Suggest = Callable[[Trial], dict[str, Any]]


@dataclass(frozen=True)
class Space:
    """What can be tried.

    Attributes:
        suggest: draws one config's fields; a function of a module, so that it pickles by name. The names that it asks
            the trial for are names of config fields (or of ``auxiliary``), and it asks for one only if it plays a part.
        base: the preset that what is drawn is laid over.
        auxiliary: names asked for that are no field, each with how a complete config answers it. They are for a field
            whose bounds depend on another answer: samplers and grids know a name by one distribution, so what is
            asked is, say, a share of the other field. Reading a drawn config back must give the same draw.
        check: raises `Unsatisfiable` for a complete config that breaks the space's constraint, if it has one. What
            ``suggest`` solves for meets it already; what is laid over a draw may not.
    """

    suggest: Suggest
    base: str
    summary: str = ""
    auxiliary: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    check: Callable[[Mapping[str, Any]], None] | None = None

    def replay(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """How a complete config would have been drawn: the fields, and the answers that give them.

        Fields that nothing is asked for are not compared: lay the fields over ``base`` to do so. Raises `OutsideSpace`
        for an answer that no draw can give.
        """
        trial = ReplayTrial({**config, **{name: read(config) for name, read in self.auxiliary.items()}})
        return self.suggest(trial), trial.params


class _Refused(ValueError):
    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name} = {value!r}: the space allows {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[_Refused], tuple[str, object, str]]:
        return type(self), (self.name, self.value, self.allowed)


class OutsideSpace(_Refused):
    """A config has a value that the space does not allow: the field, the value, and what is allowed in words."""


class Unsatisfiable(_Refused):
    """No value of a field that a space solves for meets its constraint: the field, what comes closest, and why not."""


class ReplayTrial:
    """A trial that answers from a given config, and refuses what could not have been drawn; ``params``: its answers."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self.params: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The config's value, if it is a number within the bounds and on the grid."""
        allowed = f"{low} to {high}" + (f" in steps of {step}" if step else "")
        value = self._get(name, allowed)
        inside = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if inside and step:
            inside = math.isclose((value - low) / step, round((value - low) / step), abs_tol=1e-9)
        return float(self._give(name, value, inside, allowed))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """The config's value, if it is an integer within the bounds and on the grid."""
        allowed = f"{low} to {high}" + (f" in steps of {step}" if step != 1 else "")
        value = self._get(name, allowed)
        inside = isinstance(value, int) and not isinstance(value, bool)
        return int(self._give(name, value, inside and low <= value <= high and (value - low) % step == 0, allowed))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The config's value, if it is one of ``choices`` and of the same type (True is not 1)."""
        allowed = ", ".join(repr(choice) for choice in choices)
        value = self._get(name, allowed)
        inside = any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)
        return self._give(name, value, inside, allowed)

    def _get(self, name: str, allowed: str) -> Any:
        if name not in self._config:
            raise OutsideSpace(name, None, allowed)
        return self._config[name]

    def _give(self, name: str, value: Any, inside: bool, allowed: str) -> Any:
        if not inside:
            raise OutsideSpace(name, value, allowed)
        self.params[name] = value
        return value


class RandomTrial:
    """A trial that draws every answer at random from a seed of its own; ``params``: the answers given so far."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.params: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Uniform, in the logarithm if ``log``, or on the grid of ``step``."""
        if step:
            value = low + step * self._random.randint(0, round((high - low) / step))
        elif log:
            value = math.exp(self._random.uniform(math.log(low), math.log(high)))
        else:
            value = self._random.uniform(low, high)
        return float(self._keep(name, min(max(value, low), high)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Uniform over the grid, or in the logarithm if ``log``."""
        if log:
            value = round(math.exp(self._random.uniform(math.log(low), math.log(high))))
        else:
            value = self._random.randrange(low, high + 1, step)
        return int(self._keep(name, min(max(value, low), high)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of ``choices``, uniformly."""
        return self._keep(name, self._random.choice(choices))

    def _keep(self, name: str, value: Any) -> Any:
        # Optuna too answers a name that was asked before with the same value.
        return self.params.setdefault(name, value)
