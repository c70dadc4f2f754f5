"""The scheduler of a race: gates choose among the seeds of one config, and each takes exactly its ``top``. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tune_rh.decide.halving import after_report, fill, run_first
from tune_rh.decide.scheduler import AskCandidate, Decision, Finish, Verdict, Wait
from tune_rh.plan.kinds import Race
from tune_rh.record.events import MemberId, Promoted
from tune_rh.record.history import History
from tune_rh.record.members import ADVANCE


@dataclass(frozen=True)
class RaceScheduler:
    """All seeds of the one config run to the first gate, the best go on from where they stand."""

    plan: Race

    def next(self, history: History, prefer: MemberId | None = None) -> Decision:
        """In this order: read the test split, advance members, fill gates, start seeds, wait, finish."""
        if not history.candidates:
            return AskCandidate()
        pending = history.pending
        if pending and pending[0].kind <= ADVANCE:
            return run_first(self.plan, pending, prefer)
        filled = self._fill(history)
        if filled:
            return filled
        if pending:
            return run_first(self.plan, pending, prefer)
        return Wait() if history.running else Finish()

    def verdict(self, history: History, member: MemberId) -> Verdict:
        """See `tune_rh.decide.halving.after_report`."""
        return after_report(history, member)

    def _fill(self, history: History) -> Promoted | None:
        for k in range(self.plan.last_stage):
            if history.incomplete[k]:
                return None
            filled = fill(history, k)
            if filled:
                return filled
        return None
