"""The scheduler of a race: gates choose among the seeds of one config, and each takes exactly its ``top``. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tune_rh.events import MemberId
from tune_rh.halving import after_report, fill, run_first
from tune_rh.history import History
from tune_rh.kinds import Race
from tune_rh.members import ADVANCE
from tune_rh.scheduler import AskCandidate, Decision, Finish, Promote, Verdict, Wait


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
        """See `tune_rh.halving.after_report`."""
        return after_report(history, member)

    def _fill(self, history: History) -> Promote | None:
        for k in range(self.plan.last_stage):
            if history.incomplete[k]:
                return None
            filled = fill(history, k)
            if filled:
                return filled
        return None
