"""What can be tried on `nsa`: sizes of the branches that fit together, solved for while they are drawn.

Bounds of one size depend on others, and a name has one distribution. So strides are asked for as parts of a block, and
numbers of blocks, whose bound falls with their size, by a name of their own for each size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.api import Space, Trial

_BLOCKS = (8, 16, 32)
_PARTS = (1, 2, 4)
_LEAST, _MOST = 3, 16
"""Selected blocks: at least the forced ones."""
_TINY_CONTEXT, _LONG_CONTEXT = 512, 2048
"""Of the presets that the spaces are laid over."""
_TINY_SELECT, _LONG_SELECT = (16, 32, 64), (16, 32, 64, 128)


def _sparsity(trial: Trial) -> dict[str, Any]:
    """All that makes attention sparse, at 512 tokens."""
    return _drawn(trial, _TINY_SELECT, (32, 64, 128, 256), _TINY_CONTEXT)


def _sparsity_long(trial: Trial) -> dict[str, Any]:
    """The same at 2,048 tokens."""
    return _drawn(trial, _LONG_SELECT, (32, 64, 128, 256, 512), _LONG_CONTEXT)


def _drawn(trial: Trial, select: tuple[int, ...], windows: tuple[int, ...], context: int) -> dict[str, Any]:
    """Selection and window read at most half of the context each, so that both leave something out."""
    fields: dict[str, Any] = {
        "lr": trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        "kv_groups": trial.suggest_categorical("kv_groups", (1, 2, 4)),
        "attn": trial.suggest_categorical("attn", ("nsa", "dense")),
    }
    if fields["attn"] == "dense":
        return fields
    size: int = trial.suggest_categorical("select_block", select)
    if size < max(_BLOCKS):
        block = trial.suggest_categorical("small_block", tuple(b for b in _BLOCKS if b <= size))
    else:
        block = trial.suggest_categorical("block", _BLOCKS)
    return {
        **fields,
        "select_block": size,
        "block": block,
        "stride": block // trial.suggest_categorical("stride_parts", _PARTS),
        "num_select": trial.suggest_int(_name(size), _LEAST, min(_MOST, context // 2 // size)),
        "num_local": trial.suggest_categorical("num_local", (1, 2)),
        "window": trial.suggest_categorical("window", windows),
        "phi": trial.suggest_categorical("phi", ("mlp", "mean")),
        "gate": trial.suggest_categorical("gate", ("sigmoid", "softmax")),
    }


def _name(select_block: int) -> str:
    return f"blocks_of_{select_block}"


@dataclass(frozen=True)
class _Number:
    """How many blocks of one size a config selects; None with another size."""

    select_block: int

    def __call__(self, config: Mapping[str, Any]) -> int | None:
        return config["num_select"] if config["select_block"] == self.select_block else None


def _small_block(config: Mapping[str, Any]) -> int | None:
    """The compressed block where it is asked for within the bound of a small selection block."""
    return config["block"] if config["select_block"] < max(_BLOCKS) else None


def _stride_parts(config: Mapping[str, Any]) -> int:
    """Strides in a compressed block."""
    parts: int = config["block"] // config["stride"]
    return parts


def _auxiliary(select: tuple[int, ...]) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    return {
        "small_block": _small_block,
        "stride_parts": _stride_parts,
        **{_name(size): _Number(size) for size in select},
    }


SPACES: dict[str, Space] = {
    "sparsity": Space(
        suggest=_sparsity,
        base="cpu-tiny",
        summary="branches, gates, groups of heads and learning rate at 512 bytes, on a CPU; dense as well",
        auxiliary=_auxiliary(_TINY_SELECT),
    ),
    "sparsity-long": Space(
        suggest=_sparsity_long,
        base="prod-125m",
        summary="the same at 2,048 bytes and 125 M parameters, an accelerator",
        auxiliary=_auxiliary(_LONG_SELECT),
    ),
}
