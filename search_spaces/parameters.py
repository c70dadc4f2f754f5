"""What a search space asks for, found by drawing from it: each parameter's range, and when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from search_spaces.api import RandomTrial, Space, Unsatisfiable

_DRAWS = 256


@dataclass(frozen=True)
class Parameter:
    """A name that a space asks for.

    Attributes:
        name: of a config field, or of an auxiliary parameter.
        range: what is allowed, in words; all ways of asking, if there are several.
        when: the answer after which it is asked for; empty if it always is.
    """

    name: str
    range: str
    when: str = ""


def parameters(space: Space) -> tuple[Parameter, ...]:
    """The parameters of a space in the order of the first questions, as seen in 256 random draws."""
    asked: dict[str, dict[str, None]] = {}
    choices: dict[str, Sequence[Any]] = {}
    draws = []
    for seed in range(_DRAWS):
        trial = _RecordingTrial(seed, asked, choices)
        with suppress(Unsatisfiable):  # what was asked counts, although no config comes of it
            space.suggest(trial)
        draws.append(trial.params)
    return tuple(Parameter(name, " or ".join(ways), _when(name, draws, choices)) for name, ways in asked.items())


def _when(name: str, draws: Iterable[Mapping[str, Any]], choices: Mapping[str, Sequence[Any]]) -> str:
    """The choice before ``name`` that decides whether it is asked for, the nearest one if several do."""
    having = [draw for draw in draws if name in draw]
    lacking = [draw for draw in draws if name not in draw]
    if not lacking:
        return ""
    before = list(having[0])[: list(having[0]).index(name)]
    for earlier in reversed([other for other in before if other in choices]):
        after = [value for value in choices[earlier] if any(value == draw.get(earlier, _NEVER) for draw in having)]
        decides = all(earlier in draw for draw in having) and any(earlier in draw for draw in lacking)
        if decides and not any(draw[earlier] in after for draw in lacking if earlier in draw):
            return f"{earlier} = {_listed(after, ' or ')}"
    return "in some draws"


_NEVER = object()


def _listed(values: Iterable[Any], joint: str = ", ") -> str:
    return joint.join(map(str, values))


class _RecordingTrial(RandomTrial):
    """Answers at random, and keeps how each name is asked for."""

    def __init__(self, seed: int, asked: dict[str, dict[str, None]], choices: dict[str, Sequence[Any]]) -> None:
        super().__init__(seed)
        self._asked, self._choices = asked, choices

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As any trial."""
        self._note(name, f"{low:g} to {high:g}" + (f" in steps of {step:g}" if step else "") + (", log" if log else ""))
        return super().suggest_float(name, low, high, step=step, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As any trial."""
        self._note(name, f"{low} to {high}, " + ("whole" if step == 1 else f"in steps of {step}") + ", log" * log)
        return super().suggest_int(name, low, high, step=step, log=log)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """As any trial."""
        self._note(name, _listed(choices))
        self._choices[name] = choices
        return super().suggest_categorical(name, choices)

    def _note(self, name: str, way: str) -> None:
        self._asked.setdefault(name, {})[way] = None
