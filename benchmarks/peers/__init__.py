"""Other people's tuners, driven by the clock of `tune_rh.simulation.clock` without their clusters.

Each is the library itself: its scheduler, study or optimizer is told of trials and results as its own event loop would
tell it, and its decisions are obeyed. All see the same table, workers, budget and evaluations as the policy of this
project; a trial follows one replicate of its config, drawn by seed. Where a tool has tried every config, its user would
run other seeds: it goes on with a second trial of each, with another replicate, and so on. Settings are the libraries'
defaults except where a line below says so; `SETTINGS` is printed beside every result.

What it is not: a comparison of run times, or of what the libraries do on a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from benchmarks.peers.asha import RayAsha, SyneAsha
from benchmarks.peers.neps import Neps
from benchmarks.peers.studies import Optuna
from benchmarks.peers.trials import Peer, RandomSearch
from tune_rh.simulation.clock import Table

_PRUNERS = {
    "SHA": "SuccessiveHalvingPruner, reduction_factor 4",
    "Hyperband": "HyperbandPruner, reduction_factor 3",
    "median": "MedianPruner",
}
_NEPS = "takes the best result of any length"
SETTINGS = {
    "random search": "full length, one seed a trial; takes the best mean over the trials of a config",
    "Ray Tune ASHA": "AsyncHyperBandScheduler, reduction_factor 4, random configs; takes the best last result",
    "Syne Tune ASHA": "baselines.ASHA, reduction_factor 3, random configs; takes the best of all results",
    "NePS ASHA": f"algorithms.asha, eta 3, random configs; {_NEPS}",
    "NePS PriorBand": f"algorithms.priorband on hyperband, eta 3, no prior; {_NEPS}",
    **{
        f"Optuna {sampler} + {short}": f"{name} and {pruner}; takes study.best_trial"
        for sampler, name in (("TPE", "TPESampler"), ("random", "RandomSampler"))
        for short, pruner in _PRUNERS.items()
    },
}
SLOW = [name for name in SETTINGS if name.split()[0] in ("NePS", "Optuna")]
"""Those whose own computing takes up to two seconds a search."""
_OPTIONAL = {"Syne": ("syne_tune", "syne-tune"), "NePS": ("neps", "neural-pipeline-search")}
"""Module and package of the tools whose names begin so; the others are there anyway."""


def available() -> list[str]:
    """The peers that are installed, in the order of `SETTINGS`."""
    there = {first: find_spec(module) is not None for first, (module, _) in _OPTIONAL.items()}
    return [name for name in SETTINGS if there.get(name.split()[0], True)]


def packages(names: Iterable[str]) -> list[str]:
    """The packages that the peers ``names`` come from."""
    firsts = {name.split()[0] for name in names}
    return ["ray", "optuna", *(package for first, (_, package) in _OPTIONAL.items() if first in firsts)]


def make(name: str, table: Table, grace: int, until_step: int, seed: int = 0) -> Peer:
    """A peer by its name in `SETTINGS`.

    Args:
        name: one of `available`.
        table: the curves.
        grace: steps that every trial gets at least (the first stage of a plan).
        until_step: length of a full trial.
        seed: of the order of configs, of replicates and of the library's own draws.

    Raises:
        ValueError: there is no peer of that name.
    """
    tools: Mapping[str, type[Peer]] = {
        "random search": RandomSearch,
        "Ray Tune ASHA": RayAsha,
        "Syne Tune ASHA": SyneAsha,
    }
    if name not in SETTINGS:
        raise ValueError(f"peer {name!r}: known: {', '.join(SETTINGS)}")
    if name in tools:
        return tools[name](table, grace, until_step, seed)
    tool, _, rest = name.partition(" ")
    if tool == "NePS":
        return Neps(table, grace, until_step, seed, rest)
    sampler, _, pruner = rest.partition(" + ")
    return Optuna(table, grace, until_step, seed, sampler, pruner)
