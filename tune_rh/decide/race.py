"""The scheduler of a race: gates choose among the seeds of one config, and each takes exactly its ``top``. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tune_rh.decide.halving import after_report, fill, run_first
from tune_rh.decide.scheduler import AskCandidate, Decision, Finish, Wait
from tune_rh.plan.kinds import Race
from tune_rh.record.events import MemberId
from tune_rh.record.history import History
from tune_rh.record.members import ADVANCE


@dataclass(frozen=True)
class RaceScheduler:
    """All seeds of the one config run to the first gate, the best go on from where they stand."""

    plan: Race
    verdict = staticmethod(after_report)

    def next(self, history: History, prefer: MemberId | None = None) -> Decision:
        """In this order: read the test split, advance members, fill gates, start seeds, wait, finish."""
        if not history.candidates:
            return AskCandidate()
        pending = history.pending
        if pending and pending[0].kind <= ADVANCE:
            return run_first(self.plan, pending, prefer)
        for k in range(self.plan.last_stage):
            if history.incomplete[k]:
                break  # each gate sends members on to those above it
            filled = fill(history, k)
            if filled:
                return filled
        if pending:
            return run_first(self.plan, pending, prefer)
        return Wait() if history.running else Finish()
