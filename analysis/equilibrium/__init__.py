"""What is asked of `equilibrium`: its diagnostics, one a file. Importing this loads none of them."""

from __future__ import annotations

from analysis.diagnose.api import listed

DIAGNOSTICS = (
    *listed(
        __name__,
        "ablation",
        "nudge_sweep",
        "navg_sweep",
        "nudged_state",
        "non_normality",
        "duality",
        "spectrum",
        "relaxation",
        "hijack",
    ),
    *listed(__name__, "gradient_direction", "forward_stability", "path_length", needs="records"),
)
