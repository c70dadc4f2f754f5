"""What a plan will take, before anything is built: memory of a job, and the disk of a whole run. Pure arithmetic.

Both are tested against what jobs and runs really take. Not here: whether that fits (`tune_rh.preflight.checks`).
"""

from __future__ import annotations

from itertools import pairwise

from trainables.api import Footprint
from tune_rh.plan.cost import expected
from tune_rh.plan.schema import Plan
from tune_rh.preflight.environment import MIB

MARGIN = 1.25
"""What a job may take beside its estimate: kernels' workspaces, and holes between blocks."""
_DISK_MARGIN = 1.1
_NEWEST = 2
_KEPT_IN_BF16 = 0.6
"""The share of activations that is left where matrix products are in bfloat16: norms and routers stay as they are."""
_PROCESS = 384 * MIB
"""A worker's own memory on a CPU: Python and the libraries."""


def training_bytes(footprint: Footprint, *, bf16: bool, cpu: bool = False) -> int:
    """Memory of one job: 16 bytes a parameter (18 with the copies in bfloat16), activations and logits.

    Weights, gradients and both moments of AdamW take four bytes each.
    """
    share = _KEPT_IN_BF16 if bf16 else 1.0
    kept = share * footprint.activations + footprint.logits
    return int((18 if bf16 else 16) * footprint.parameters + kept) + (_PROCESS if cpu else 0)


def checkpoint_bytes(footprint: Footprint) -> int:
    """One checkpoint on disk: weights and both moments of AdamW in float32, and what says what they are."""
    return 12 * footprint.parameters + 2**16


def run_bytes(plan: Plan, checkpoint: int, slots: int = 1) -> int:
    """Disk for all checkpoints of a run at its end, one more a slot that is being written, and a margin.

    A member keeps one a gate, the newest two and the best, and no more than it was evaluated times. Those that a gate
    cuts keep theirs as well.
    """
    rows = expected(plan)
    entering = [row.num_members for row in rows] + [0]
    kept = 0
    for stage, (here, further) in enumerate(pairwise(entering)):
        evaluations = rows[stage].until_step // plan.eval_every
        kept += max(0, here - further) * min(stage + 1 + _NEWEST, evaluations)
    return int(_DISK_MARGIN * checkpoint * (kept + slots))
