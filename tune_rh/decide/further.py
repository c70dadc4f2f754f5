"""What gates that learn do beside their quota: they spend a budget to its end, and buy seeds last, for contenders.

While there is budget, candidates are drawn and promoted as ever. Once no other candidate can come, what is left would
be worth nothing: the gates open further, all of them together. What the further seeds of the best will cost is kept
back until the last, when most is known of who they should be. Nothing is started that the budget does not pay for.
"""

from __future__ import annotations

import math

from tune_rh.plan.kinds import Search
from tune_rh.plan.stages import stage_steps
from tune_rh.record.gate import Gate
from tune_rh.record.history import History

_LEAD = 0.1
"""A candidate that is less likely than this to be better than the first at a gate gets no further seeds there."""
_FEW = 3
"""So many candidates at the most are kept steps for, of further seeds."""
_ALMOST_ALL = 0.99


def is_contender(gate: Gate, index: int) -> bool:
    """Whether candidate ``index`` may go on: where only seeds are to be had, only if they could change the choice."""
    return not gate.for_seeds or gate.chance_of_lead(index) >= _LEAD


def may_pass(plan: Search, history: History, k: int) -> bool:
    """Whether the first that waits at gate ``k`` may go on by its rank: where there is a budget, seeds come last."""
    gate, left = history.gates[k], steps_left(plan, history)
    if math.isinf(left):
        return is_contender(gate, gate.waiting[0].entry)
    return not gate.for_seeds and stage_steps(plan.stages, k + 1) <= left - kept_for_seeds(plan, history, left)


def steps_left(plan: Search, history: History) -> float:
    """`uncommitted` of the plan's budget; inf where gates do not spend one to its end."""
    if plan.gates != "adaptive" or plan.budget.max_steps is None:
        return math.inf
    return uncommitted(plan, history, plan.budget.max_steps)


def uncommitted(plan: Search, history: History, budget: float) -> float:
    """Steps of ``budget`` that no job under way or in line will take, nor the control and references up to their end.

    Far from the end of the budget, less may be returned, as if each of those jobs went from the first step to the last.
    """
    left, longest = budget - history.steps_spent - _beside(plan, history), plan.stages[-1].until_step
    at_least = left - (len(history.running) + len(history.pending)) * longest
    if at_least > (1 + _FEW * len(plan.seeds)) * longest:
        return at_least
    members = [*history.running.values(), *(history.member(one.member) for one in history.pending)]
    return left - sum(max(0, plan.stages[member.stage].until_step - member.step) for member in members)


def _beside(plan: Search, history: History) -> int:
    """Steps of the control and the references through the stages that they have still to enter."""
    behind = (one.stage for one in (history.control, *history.references) if one is not None)
    return sum(stage_steps(plan.stages, k) for stage in behind for k in range(stage + 1, len(plan.stages)))


def kept_for_seeds(plan: Search, history: History, left: float) -> int:
    """Steps that are kept back for further seeds of the best that wait for them; 0 where no budget is planned with."""
    if math.isinf(left):
        return 0
    gates = enumerate(history.gates[:-1])
    return sum(min(_FEW, len(gate.waiting)) * stage_steps(plan.stages, k + 1) for k, gate in gates if gate.for_seeds)


def may_draw(plan: Search, left: float) -> bool:
    """Whether one candidate more could come to the last step with the steps that are ``left``."""
    if math.isinf(left):
        return True
    ends = [0, *(stage.until_step for stage in plan.stages)]
    longer = [k for k in range(len(plan.stages)) if ends[k + 1] > ends[k]]
    return left >= sum(stage_steps(plan.stages, k) for k in longer)


def open_further(plan: Search, history: History, left: float, *, seeds: bool) -> tuple[int, int] | None:
    """The gate, and the candidate that passes it next, where that costs no more than is ``left``; None: there is none.

    The share of a gate with a quota q of n is (q / n)^e with e = 1; as e falls from there, all shares rise together.
    Next is the candidate that is within the share of its gate first; of several, the one at the highest gate.

    Args:
        seeds: of the gates for further seeds, or of all others.
    """
    found: tuple[float, int, int] | None = None
    for k, gate in enumerate(history.gates[:-1]):
        at_most = plan.stages[k].at_most
        if gate.for_seeds != seeds or not gate.waiting or (at_most is not None and gate.num_promoted >= at_most):
            continue
        first = gate.waiting[0].entry
        if stage_steps(plan.stages, k + 1) > left:
            continue
        if gate.learnt is None or not is_contender(gate, first):
            continue
        place = (gate.rank(first) + 1) / len(gate.order)
        exponent = math.log(place) / math.log(min(gate.learnt.share, _ALMOST_ALL))
        found = max(found or (-1.0, 0, 0), (exponent, k, first))
    return None if found is None else found[1:]
