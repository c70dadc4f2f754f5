"""What a search space is: a function that draws one config from a trial. Standard library only.

Not here: a sampler. A `Trial` is what Optuna gives (and what anything with its three methods gives); `ReplayTrial`
answers from a config instead, to tell whether it lies inside a space, and `RandomTrial` draws from a seed, for tests.
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
            the trial for are names of config fields, and it asks for a field only if that plays a part.
        base: the preset that what is drawn is laid over.
        outside: presets of the family that no draw can give, each with the reason.
        summary: one line.
    """

    suggest: Suggest
    base: str
    outside: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""


class OutsideSpace(ValueError):
    """A config has a value that the space does not allow.

    Attributes:
        name: the field.
        value: what the config has.
        allowed: what the space allows, in words.
    """

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name} = {value!r}: the space allows {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[OutsideSpace], tuple[str, object, str]]:
        return type(self), (self.name, self.value, self.allowed)


class ReplayTrial:
    """A trial that answers each question from a given config, and refuses what could not have been drawn.

    Attributes:
        params: the answers given so far, by name.
    """

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
    """A trial that draws every answer at random from a seed of its own.

    Attributes:
        params: the answers given so far, by name.
    """

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
