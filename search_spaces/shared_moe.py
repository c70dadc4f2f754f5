"""What can be tried on `shared_moe`: functions that draw a config's fields, and the table of them.

Constraints (as many parameters, as much compute as the control's) are met by solving for a field, not by drawing until
it fits. The two formulas they need stand here, because spaces do not import the families.

What it is not: the configs' bounds (``trainables.shared_moe.config`` refuses what makes no sense), or presets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from search_spaces.api import Space, Trial, Unsatisfiable

# What the formulas read of preset ``control``, which the constraints refer to.
CONTROL: Mapping[str, Any] = {
    "vocab_size": 50_257,
    "context": 1024,
    "width": 1024,
    "depth": 20,
    "blocks": "shared",
    "ffn": "moe",
    "d_ff": 2048,
    "tied": False,
    "depth_embedding": False,
    "num_experts": 40,
    "top_k": 2,
}

HALF = (0.45, 0.55)
"""What counts as half of the control's parameters."""
ACTIVE_WITHIN, MATMUL_WITHIN = 0.02, 0.05
"""How far from the control's a config of the same compute may be: its experts' share, and all of it."""
WIDTH_STEP = 8
"""Hidden units come in multiples that tensor cores take."""

AUX_STARTS = (0.005, 0.01, 0.02, 0.03, 0.05)
# A coefficient that stays has decay end 0 instead of a share of 1.
_END_SHARE = (0.1, 0.9)
_DIGITS = 6


def total_params(fields: Mapping[str, Any]) -> int:
    """Parameters of a config's model (`trainables.shared_moe.accounting.count_params`)."""
    d, f, e = fields["width"], fields["d_ff"], fields["num_experts"]
    expert = 2 * d * f + f + d
    ffn = d * e + e + e * expert if fields["ffn"] == "moe" else expert
    block = 4 * d * d + 4 * d + 4 * d + ffn
    tables = fields["vocab_size"] * (1 if fields["tied"] else 2) + fields["context"]
    depth_embedding = fields["depth"] if fields["depth_embedding"] else 0
    blocks = 1 if fields["blocks"] == "shared" else fields["depth"]
    return int(d * (tables + depth_embedding + 2) + blocks * block)


def matmul_params(fields: Mapping[str, Any]) -> int:
    """Matrix entries a token is multiplied by (`trainables.shared_moe.accounting.matmul_params`)."""
    d = fields["width"]
    layer = 4 * d * d + 2 * active_width(fields) + d * fields["num_experts"]
    return int(fields["depth"] * layer + fields["vocab_size"] * d)


def active_width(fields: Mapping[str, Any]) -> int:
    """k f d: what a token meets of the experts in a layer, or f d of a dense one."""
    active = fields["top_k"] if fields["ffn"] == "moe" else 1
    return int(active * fields["d_ff"] * fields["width"])


def experts_of_half(fields: Mapping[str, Any], reference: Mapping[str, Any] = CONTROL) -> int:
    """The number of experts that brings a config nearest to half of the reference's parameters.

    Args:
        fields: what `CONTROL` has, ``num_experts`` left open.
        reference: the config whose half is wanted.

    Raises:
        Unsatisfiable: even that is outside of `HALF`.
    """
    without = total_params({**fields, "num_experts": 0})
    each = total_params({**fields, "num_experts": 1}) - without
    goal = sum(HALF) / 2 * total_params(reference)
    number: int = max(2, fields["top_k"], round((goal - without) / each))
    check_half({**fields, "num_experts": number}, reference)
    return number


def check_half(fields: Mapping[str, Any], reference: Mapping[str, Any] = CONTROL) -> None:
    """Raise `Unsatisfiable` unless a config has half of the reference's parameters, within `HALF`."""
    whole = total_params(reference)
    share = total_params(fields) / whole
    if not HALF[0] <= share <= HALF[1]:
        without = total_params({**fields, "num_experts": 0}) / whole
        size = ", ".join(f"{name} = {fields[name]}" for name in ("vocab_size", "width", "d_ff", "tied"))
        raise Unsatisfiable(
            "num_experts",
            fields["num_experts"],
            f"{HALF[0]} to {HALF[1]} of the control's {whole:,} parameters, and these are {share:.3f} "
            f"({without:.3f} without experts, with {size})",
        )


def width_of_matched(fields: Mapping[str, Any], reference: Mapping[str, Any] = CONTROL) -> int:
    """The hidden units (`d_ff`) with which k experts are as wide together as the reference's.

    Args:
        fields: what `CONTROL` has, ``d_ff`` left open.
        reference: the config whose compute is to be matched.

    Raises:
        Unsatisfiable: no multiple of `WIDTH_STEP` comes near enough, or the rest of the config costs more or less.
    """
    exact = active_width(reference) / (fields["top_k"] * fields["width"])
    d_ff: int = WIDTH_STEP * max(1, round(exact / WIDTH_STEP))
    check_matched({**fields, "d_ff": d_ff}, reference)
    return d_ff


def check_matched(fields: Mapping[str, Any], reference: Mapping[str, Any] = CONTROL) -> None:
    """Raise `Unsatisfiable` unless a token costs what it costs in the reference, its experts and everything."""
    active = active_width(fields) / active_width(reference)
    if abs(active - 1) > ACTIVE_WITHIN:
        raise Unsatisfiable(
            "d_ff",
            fields["d_ff"],
            f"top_k x d_ff x width within {ACTIVE_WITHIN:.0%} of the control's {active_width(reference):,}, and this "
            f"is {active:.3f} of it with top_k = {fields['top_k']}, width = {fields['width']}",
        )
    everything = matmul_params(fields) / matmul_params(reference)
    if abs(everything - 1) > MATMUL_WITHIN:
        size = ", ".join(f"{name} = {fields[name]}" for name in ("depth", "vocab_size", "num_experts"))
        raise Unsatisfiable(
            "width",
            fields["width"],
            f"matrix entries a token within {MATMUL_WITHIN:.0%} of the control's {matmul_params(reference):,}, and "
            f"these are {everything:.3f} of it with {size}",
        )


def check_half_matched(fields: Mapping[str, Any]) -> None:
    """Raise `Unsatisfiable` unless a config has half of the control's parameters and costs a token what it costs."""
    check_half(fields)
    check_matched(fields)


def routing(trial: Trial) -> dict[str, Any]:
    """How tokens find experts, and how many there are of what size; the rest as in the control."""
    return {**_experts(trial), **_size(trial), **_routed(trial, (1, 2)), **_trained(trial)}


def routing_wide(trial: Trial) -> dict[str, Any]:
    """As `routing`, with up to four experts a token, sigmoid gates and any coefficient of two decades."""
    return {**_experts(trial), **_size(trial), **_routed(trial, (1, 2, 3, 4), wide=True), **_trained(trial)}


def matched_active(trial: Trial) -> dict[str, Any]:
    """Routing at the control's compute: few wide experts a token or several narrow ones, the width solved for."""
    fields = {**_experts(trial), **_routed(trial, (1, 2, 3, 4)), **_trained(trial)}
    return {**fields, "d_ff": width_of_matched({**CONTROL, **fields})}


def half_params(trial: Trial) -> dict[str, Any]:
    """Routing with half of the control's parameters, the number of experts solved for."""
    fields = {**_tied(trial), **_size(trial), **_routed(trial, (1, 2)), **_trained(trial)}
    return {**fields, "num_experts": experts_of_half({**CONTROL, **fields})}


def half_matched(trial: Trial) -> dict[str, Any]:
    """Half of the control's parameters at its compute: the width and then the number of experts solved for."""
    fields = {**_tied(trial), **_routed(trial, (1, 2, 3, 4)), **_trained(trial)}
    fields["d_ff"] = width_of_matched({**CONTROL, **fields})
    return {**fields, "num_experts": experts_of_half({**CONTROL, **fields})}


def cpu_tiny(trial: Trial) -> dict[str, Any]:
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
        start = trial.suggest_categorical("aux_loss_coef_start", AUX_STARTS)
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


def aux_end_share(config: Mapping[str, Any]) -> float | None:
    """The end of the auxiliary coefficient as a share of its start; None without an auxiliary loss."""
    start: float = config["aux_loss_coef_start"]
    if not start:
        return None
    share: float = config["aux_loss_coef_end"] / start
    return next((bound for bound in _END_SHARE if math.isclose(share, bound, rel_tol=10.0 ** (1 - _DIGITS))), share)


def z_loss(config: Mapping[str, Any]) -> bool:
    """Whether large logits of the router are charged at all."""
    return bool(config["z_loss_coef"])


def sigmoid_gate(config: Mapping[str, Any]) -> bool:
    """Whether a gate is the sigmoid of its own logit, and not a softmax."""
    return bool(config["gate"] == "sigmoid")


_DENSE = "is dense, and this space is about experts"
_NARROW = "is narrower and shallower than the control"
_FEWER = "has half of the control's parameters, which the spaces routing-half-* are about"
_WHOLE = "has all of the control's parameters, and this space is about half of them"
_CPU = "is sized for a CPU"
_LARGE = "is sized for an accelerator"
_TINY = "is for tests"

_OF_NO_LARGE_SPACE = {
    **dict.fromkeys(("indexed-dense", "shared-dense"), _DENSE),
    **dict.fromkeys(("half-notes", "midsize"), _NARROW),
    **dict.fromkeys(("cpu-tiny", "cpu-tiny-dense"), _CPU),
    "tiny": _TINY,
}
_END_SHARED = {"aux_end_share": aux_end_share}
_LARGE_AUXILIARY = {**_END_SHARED, "z_loss": z_loss}

SPACES: dict[str, Space] = {
    "routing": Space(
        suggest=routing,
        base="control",
        outside={**_OF_NO_LARGE_SPACE, "half-matched": _FEWER},
        summary="experts, their number, size and balance, an accelerator",
        auxiliary=_LARGE_AUXILIARY,
    ),
    "routing-wide": Space(
        suggest=routing_wide,
        base="control",
        outside={**_OF_NO_LARGE_SPACE, "half-matched": _FEWER},
        summary="routing with up to four experts a token, sigmoid gates, any aux coefficient from 0.001 to 0.1",
        auxiliary={**_LARGE_AUXILIARY, "sigmoid_gate": sigmoid_gate},
    ),
    "routing-matched-active": Space(
        suggest=matched_active,
        base="control",
        outside={**_OF_NO_LARGE_SPACE, "half-matched": _FEWER},
        summary="routing at the control's compute a token: d_ff follows from top_k",
        auxiliary=_LARGE_AUXILIARY,
        check=check_matched,
    ),
    "routing-half-params": Space(
        suggest=half_params,
        base="control",
        outside={**_OF_NO_LARGE_SPACE, "control": _WHOLE},
        summary="routing with half of the control's parameters: num_experts follows from the sizes",
        auxiliary=_LARGE_AUXILIARY,
        check=check_half,
    ),
    "routing-half-matched": Space(
        suggest=half_matched,
        base="control",
        outside={**_OF_NO_LARGE_SPACE, "control": _WHOLE},
        summary="half of the control's parameters at its compute a token: d_ff and num_experts follow",
        auxiliary=_LARGE_AUXILIARY,
        check=check_half_matched,
    ),
    "cpu-tiny": Space(
        suggest=cpu_tiny,
        base="cpu-tiny",
        outside={
            **dict.fromkeys(("control", "indexed-dense", "shared-dense"), _LARGE),
            **dict.fromkeys(("half-notes", "midsize", "half-matched"), _LARGE),
            "cpu-tiny-dense": _DENSE,
            "tiny": _TINY,
        },
        summary="experts, their number, size and balance, in minutes on a CPU",
        auxiliary=_END_SHARED,
    ),
}
