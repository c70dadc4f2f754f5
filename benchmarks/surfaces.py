"""Continuous spaces with planted curves: what samplers are compared on, where the best config is known.

A config lies in the unit cube and ends at a known function of it. On the way it stands above that by a part that
decays with the steps, and that depends on the config as well: some are quick and end worse, as with a learning rate
that is too large. Seeds add noise. Configs are made when they are asked for, so that a sampler gets what it draws.

What it is not: training. The functions are common tests of optimisers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, overload

import numpy as np

from tune_rh.simulation.curve_table import Array, Curve, Parameter, Value

Function = Callable[[Array], float]
NUM_STEPS, NUM_SEEDS, NUM_BLIND = 50, 3, 1000
NOISE, EARLY, DECAY = 0.1, 3.0, 0.7
"""Standard deviation of a seed, height of the decaying part at the first step, and its power of the step: in units of
the standard deviation of the function over the cube."""

_HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann(x: Array) -> float:
    """Hartmann's function of six parameters (Dixon & Szego 1978), six minima, the best -3.32237."""
    inner = (_HARTMANN_A * (x - _HARTMANN_P) ** 2).sum(axis=1)
    return -float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-inner))


def levy(x: Array) -> float:
    """Levy's function on [-10, 10] (Laguna & Marti 2005), many minima, the best 0 at 1."""
    w = 1 + (20 * x - 10 - 1) / 4
    middle = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)
    return float(np.sin(math.pi * w[0]) ** 2 + middle.sum() + (w[-1] - 1) ** 2 * (1 + np.sin(2 * math.pi * w[-1]) ** 2))


def rosenbrock(x: Array) -> float:
    """Logarithm of one plus Rosenbrock's function on [-2, 2], a bent valley, the best 0 at 1."""
    z = 4 * x - 2
    return math.log1p(float((100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2).sum()))


def bowl(x: Array) -> float:
    """A bowl of which the first parameters matter most, the best 0 at 0.3."""
    return float((0.5 ** np.arange(len(x)) * (x - 0.3) ** 2).sum())


@dataclass(frozen=True, eq=False)
class Surface:
    """A function with planted curves (`tune_rh.simulation.clock.Table`): config 0 is the best, and is never drawn.

    Attributes:
        best: where the function is least.
    """

    name: str
    function: Function
    best: tuple[float, ...]
    configs: list[Mapping[str, Value]] = field(default_factory=list)
    _values: list[float] = field(default_factory=list)
    objective: str = "loss"
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        self._add(self.best)
        rng = random.Random(0)
        for _ in range(NUM_BLIND):
            self._add([rng.random() for _ in self.best])

    @property
    def labels(self) -> Sequence[str]:
        """Empty for all."""
        return [""] * len(self.configs)

    @property
    def curves(self) -> Sequence[Sequence[Curve]]:
        """Made when they are asked for."""
        return _Curves(self)

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """x0, x1, ... in the unit interval."""
        return {f"x{i}": Parameter("float", 0.0, 1.0) for i in range(len(self.best))}

    @property
    def steps(self) -> Sequence[int]:
        """1 to `NUM_STEPS`."""
        return range(1, NUM_STEPS + 1)

    @property
    def truth(self) -> Array:
        """(configs,) the function."""
        return np.array(self._values)

    @cached_property
    def prior(self) -> float:
        """Median of the blind configs above the best."""
        return float(np.median(self._values[1 : NUM_BLIND + 1])) - self._values[0]

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the function over the blind configs."""
        return float(np.std(self._values[1 : NUM_BLIND + 1]))

    def nearest(self, config: Mapping[str, Value], exclude: set[int]) -> int:
        """A new config: it is the one that was asked for."""
        return self._add([float(config[name]) for name in self.parameters])

    def seeds(self, config: int) -> list[Curve]:
        """The curves of a config."""
        x, steps = list(self.configs[config].values()), np.arange(1, NUM_STEPS + 1)
        # The first parameter makes quick what it does not make good.
        early = EARLY * self.spread * (1.5 - float(x[0])) * (steps**-DECAY - NUM_STEPS**-DECAY)
        curves = []
        for seed in range(NUM_SEEDS):
            luck = NOISE * self.spread * random.Random(f"{x} {seed}").gauss(0.0, 1.0)
            curves.append(Curve(seed, steps, self._values[config] + luck + early, steps.astype(np.float64)))
        return curves

    def _add(self, point: Sequence[float]) -> int:
        self.configs.append({f"x{i}": x for i, x in enumerate(point)})
        self._values.append(self.function(np.array(point)))
        return len(self.configs) - 1


class _Curves(Sequence[Sequence[Curve]]):
    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def __len__(self) -> int:
        return len(self._surface.configs)

    @overload
    def __getitem__(self, index: int) -> Sequence[Curve]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[Curve]]: ...

    def __getitem__(self, index: int | slice) -> Sequence[Curve] | Sequence[Sequence[Curve]]:
        if isinstance(index, slice):
            return [self._surface.seeds(i) for i in range(len(self))[index]]
        return self._surface.seeds(index)


def surfaces() -> list[Surface]:
    """All, anew: each search begins with none of another's configs."""
    hartmann_best = (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)
    return [
        Surface("hartmann, 6 parameters", hartmann, hartmann_best),
        Surface("levy, 5 parameters", levy, (0.55,) * 5),
        Surface("rosenbrock, 4 parameters", rosenbrock, (0.75,) * 4),
        Surface("bowl, 8 parameters", bowl, (0.3,) * 8),
    ]
