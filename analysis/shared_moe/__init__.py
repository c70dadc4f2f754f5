"""What is asked of `shared_moe`: its baselines, and its diagnostics, one a file. Importing this loads none of them."""

from __future__ import annotations

from analysis.diagnose.api import listed

DIAGNOSTICS = (
    *listed(__name__, "routing_balance", "depth_specialisation", "expert_importance"),
    *listed(__name__, "matched_tokens", "parameter_verdict", "aux_tradeoff", "efficiency", needs="records"),
)
