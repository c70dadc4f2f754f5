"""What can be tried on `shared_moe`: functions that draw a config's fields, and the table of them.

Constraints (as many parameters, as much compute as the control's) are met by solving for a field, not by drawing until
it fits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from search_spaces.api import Space, Trial, Unsatisfiable
from trainables.shared_moe.accounting import Size, active_ffn, count_params, matmul_params

CONTROL = Size()
_HALF = (0.45, 0.55)
"""What counts as half of the control's parameters."""
_ACTIVE_WITHIN, _MATMUL_WITHIN = 0.02, 0.05
"""How far from the control's a config of the same compute may be: its experts' share, and all of it."""
_WIDTH_STEP = 8
"""Hidden units come in multiples that tensor cores take."""

_AUX_STARTS = (0.005, 0.01, 0.02, 0.03, 0.05)
# A coefficient that stays has decay end 0 instead of a share of 1.
_END_SHARE = (0.1, 0.9)
_DIGITS = 6


def experts_of_half(fields: Mapping[str, Any]) -> int:
    """The ``num_experts`` that brings the other fields nearest to half of the control's parameters.

    Raises `Unsatisfiable` if even that is no half.
    """
    size = Size.of(fields)
    without = count_params(replace(size, num_experts=0))
    each = count_params(replace(size, num_experts=1)) - without
    goal = sum(_HALF) / 2 * count_params(CONTROL)
    number: int = max(2, size.top_k, round((goal - without) / each))
    _check_half({**fields, "num_experts": number})
    return number


def _check_half(fields: Mapping[str, Any]) -> None:
    """Raise `Unsatisfiable` unless a config has half of the control's parameters, within `_HALF`."""
    size, whole = Size.of(fields), count_params(CONTROL)
    share = count_params(size) / whole
    if not _HALF[0] <= share <= _HALF[1]:
        without = count_params(replace(size, num_experts=0)) / whole
        raise Unsatisfiable(
            "num_experts",
            size.num_experts,
            f"{_HALF[0]} to {_HALF[1]} of the control's {whole:,} parameters, and these are {share:.3f} "
            f"({without:.3f} without experts, with {_named(size, 'vocab_size', 'width', 'd_ff', 'tied')})",
        )


def width_of_matched(fields: Mapping[str, Any]) -> int:
    """The ``d_ff`` with which the k experts of the other fields are as wide together as the control's.

    Raises `Unsatisfiable` if no multiple comes near enough, or the rest of the config costs more or less.
    """
    exact = active_ffn(CONTROL) / active_ffn(replace(Size.of(fields), d_ff=1))
    d_ff: int = _WIDTH_STEP * max(1, round(exact / _WIDTH_STEP))
    _check_matched({**fields, "d_ff": d_ff})
    return d_ff


def _check_matched(fields: Mapping[str, Any]) -> None:
    """Raise `Unsatisfiable` unless a token costs what it costs in the control, its experts and everything."""
    size, whole = Size.of(fields), active_ffn(CONTROL)
    active = active_ffn(size) / whole
    if abs(active - 1) > _ACTIVE_WITHIN:
        raise Unsatisfiable(
            "d_ff",
            size.d_ff,
            f"top_k x d_ff x width within {_ACTIVE_WITHIN:.0%} of the control's {whole // 2:,}, and this is "
            f"{active:.3f} of it with {_named(size, 'top_k', 'width')}",
        )
    everything = matmul_params(size) / matmul_params(CONTROL)
    if abs(everything - 1) > _MATMUL_WITHIN:
        raise Unsatisfiable(
            "width",
            size.width,
            f"matrix entries a token within {_MATMUL_WITHIN:.0%} of the control's {matmul_params(CONTROL):,}, and "
            f"these are {everything:.3f} of it with {_named(size, 'depth', 'vocab_size', 'num_experts')}",
        )


def _named(size: Size, *names: str) -> str:
    return ", ".join(f"{name} = {getattr(size, name)}" for name in names)


def _check_half_matched(fields: Mapping[str, Any]) -> None:
    """Raise `Unsatisfiable` unless a config has half of the control's parameters and costs a token what it costs."""
    _check_half(fields)
    _check_matched(fields)


def _routing(trial: Trial) -> dict[str, Any]:
    """How tokens find experts, and how many there are of what size; the rest as in the control."""
    return {**_experts(trial), **_size(trial), **_routed(trial, (1, 2)), **_trained(trial)}


def _routing_wide(trial: Trial) -> dict[str, Any]:
    """As `routing`, with up to four experts a token, sigmoid gates and any coefficient of two decades."""
    return {**_experts(trial), **_size(trial), **_routed(trial, (1, 2, 3, 4), wide=True), **_trained(trial)}


def _matched_active(trial: Trial) -> dict[str, Any]:
    """Routing at the control's compute: few wide experts a token or several narrow ones, the width solved for."""
    fields = {**_experts(trial), **_routed(trial, (1, 2, 3, 4)), **_trained(trial)}
    return {**fields, "d_ff": width_of_matched(fields)}


def _half_params(trial: Trial) -> dict[str, Any]:
    """Routing with half of the control's parameters, the number of experts solved for."""
    fields = {**_tied(trial), **_size(trial), **_routed(trial, (1, 2)), **_trained(trial)}
    return {**fields, "num_experts": experts_of_half(fields)}


def _half_matched(trial: Trial) -> dict[str, Any]:
    """Half of the control's parameters at its compute: the width and then the number of experts solved for."""
    fields = {**_tied(trial), **_routed(trial, (1, 2, 3, 4)), **_trained(trial)}
    fields["d_ff"] = width_of_matched(fields)
    return {**fields, "num_experts": experts_of_half(fields)}


def _cpu_tiny(trial: Trial) -> dict[str, Any]:
    """Routing at a size that a CPU core trains ten steps a second of."""
    return {
        "num_experts": trial.suggest_categorical("num_experts", (8, 16)),
        "d_ff": trial.suggest_categorical("d_ff", (128, 256)),
        **_routed(trial, (1, 2)),
        "lr": trial.suggest_float("lr", 3e-4, 5e-3, log=True),
    }


def _experts(trial: Trial) -> dict[str, Any]:
    return {"num_experts": trial.suggest_categorical("num_experts", (20, 40, 60))}


def _size(trial: Trial) -> dict[str, Any]:
    return {"d_ff": trial.suggest_categorical("d_ff", (1024, 2048, 3072))}


def _tied(trial: Trial) -> dict[str, Any]:
    return {"tied": trial.suggest_categorical("tied", (False, True))}


def _trained(trial: Trial) -> dict[str, Any]:
    charged = trial.suggest_categorical("z_loss", (False, True))
    return {
        "z_loss_coef": trial.suggest_float("z_loss_coef", 1e-4, 1e-2, log=True) if charged else 0.0,
        "lr": trial.suggest_float("lr", 1e-4, 2e-3, log=True),
    }


def _routed(trial: Trial, top_k: tuple[int, ...], *, wide: bool = False) -> dict[str, Any]:
    k: int = trial.suggest_categorical("top_k", top_k)
    # A softmax over the chosen is 1 for one of them, and the router would learn nothing from the task.
    gate = "topk_softmax" if k > 1 else "prob"
    if wide and trial.suggest_categorical("sigmoid_gate", (False, True)):
        gate = "sigmoid"
    return {"top_k": k, "gate": gate, **_balanced(trial, wide=wide)}


def _balanced(trial: Trial, *, wide: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "balance": trial.suggest_categorical("balance", ("aux", "lossfree", "none")),
        "aux_loss_coef_start": 0.0,
        "aux_loss_coef_end": 0.0,
        "aux_warmup_frac": 0.0,
        "aux_decay_end_frac": 0.0,
    }
    if fields["balance"] != "aux":
        return fields
    if wide:
        start = trial.suggest_float("aux_loss_coef_start", 1e-3, 1e-1, log=True)
    else:
        start = trial.suggest_categorical("aux_loss_coef_start", _AUX_STARTS)
    # Decay ends after the longest warm-up, or the coefficient stays (0).
    fields["aux_decay_end_frac"] = trial.suggest_categorical("aux_decay_end_frac", (0.0, 0.15, 0.3, 0.5))
    fields["aux_loss_coef_start"] = fields["aux_loss_coef_end"] = start
    if fields["aux_decay_end_frac"]:
        fields["aux_loss_coef_end"] = _end(start, trial.suggest_float("aux_end_share", *_END_SHARE, log=True))
        fields["aux_warmup_frac"] = trial.suggest_float("aux_warmup_frac", 0.0, 0.1)
    return fields


def _end(start: float, share: float) -> float:
    # Few digits: the share that is read back differs by rounding, and must give the same end.
    return float(f"{start * share:.{_DIGITS}g}")


def _aux_end_share(config: Mapping[str, Any]) -> float | None:
    """The end of the auxiliary coefficient as a share of its start; None without an auxiliary loss."""
    start: float = config["aux_loss_coef_start"]
    if not start:
        return None
    share: float = config["aux_loss_coef_end"] / start
    return next((bound for bound in _END_SHARE if math.isclose(share, bound, rel_tol=10.0 ** (1 - _DIGITS))), share)


def _z_loss(config: Mapping[str, Any]) -> bool:
    """Whether large logits of the router are charged at all."""
    return bool(config["z_loss_coef"])


def _sigmoid_gate(config: Mapping[str, Any]) -> bool:
    """Whether a gate is the sigmoid of its own logit, and not a softmax."""
    return bool(config["gate"] == "sigmoid")


_END_SHARED = {"aux_end_share": _aux_end_share}
_LARGE_AUXILIARY = {**_END_SHARED, "z_loss": _z_loss}

SPACES: dict[str, Space] = {
    "routing": Space(
        suggest=_routing,
        base="control",
        summary="experts, their number, size and balance, an accelerator",
        auxiliary=_LARGE_AUXILIARY,
    ),
    "routing-wide": Space(
        suggest=_routing_wide,
        base="control",
        summary="routing with up to four experts a token, sigmoid gates, any aux coefficient from 0.001 to 0.1",
        auxiliary={**_LARGE_AUXILIARY, "sigmoid_gate": _sigmoid_gate},
    ),
    "routing-matched-active": Space(
        suggest=_matched_active,
        base="control",
        summary="routing at the control's compute a token: d_ff follows from top_k",
        auxiliary=_LARGE_AUXILIARY,
        check=_check_matched,
    ),
    "routing-half-params": Space(
        suggest=_half_params,
        base="control",
        summary="routing with half of the control's parameters: num_experts follows from the sizes",
        auxiliary=_LARGE_AUXILIARY,
        check=_check_half,
    ),
    "routing-half-matched": Space(
        suggest=_half_matched,
        base="control",
        summary="half of the control's parameters at its compute a token: d_ff and num_experts follow",
        auxiliary=_LARGE_AUXILIARY,
        check=_check_half_matched,
    ),
    "cpu-tiny": Space(
        suggest=_cpu_tiny,
        base="cpu-tiny",
        summary="experts, their number, size and balance, in minutes on a CPU",
        auxiliary=_END_SHARED,
    ),
}
