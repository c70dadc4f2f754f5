"""What is asked of `spacing_mdn`: its baselines, and its diagnostics, one a file. Importing this loads none of them."""

from __future__ import annotations

from analysis.diagnose.api import Listed, listed

DIAGNOSTICS = (
    *listed(
        __name__,
        "slot_ablation",
        "slot_similarity",
        "slot_gradients",
        "readout",
        "slot_effect",
        "slot_norms",
        "rollout_drift",
        "cross_block",
        "attention_profile",
        "permutation",
        "gradient_rank",
        "id_only",
        "content_only",
        "calibration",
    ),
    Listed("baselines", "checkpoint", f"{__name__}.against_baselines:against_baselines"),
    *listed(__name__, "prime_lines", "channel_gain"),
    *listed(__name__, "nll_by_primes", needs="records"),
)
"""In the order A to R; Q and R ask about features of the past."""
