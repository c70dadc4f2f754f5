"""What is asked of `nsa`: its diagnostics, one a file. Importing this loads none of them."""

from __future__ import annotations

from analysis.diagnose.api import listed

DIAGNOSTICS = (
    *listed(__name__, "causality", "reads", "gate_shares", "coverage", "left_out", "needle", "decode_cost"),
    *listed(__name__, "matched_tokens", needs="records"),
)
