"""Does attention read what its sizes say, and how much less is that than dense attention?

What it is: keys counted on the masks and lists that the kernels were given, over sampled sequences, against the closed
form; and the closed form at lengths that the model was not trained at.
"""

from __future__ import annotations

from typing import Any

from analysis.diagnose.api import Finding, Plot, Series, answer, diagnostic
from analysis.nsa.looked import tallies
from trainables.nsa.sparsity import Sparsity

_LENGTHS = tuple(2**n for n in range(7, 17))


@diagnostic("keys read, against dense attention")
def reads(subject: Any) -> Finding:
    """Return a finding with values ``mismatches``, queries and groups that read another number of keys than the closed
    form; ``saving_at_context`` and ``saving_at_65536``, how many times fewer keys than dense attention."""
    wrong = sum(tally.metrics()["eval_reads_mismatch"] for tally in tallies(subject))
    return judge(wrong, subject.config.sparsity, subject.config.context)


def judge(wrong: float, sizes: Sparsity, context: int) -> Finding:
    """The finding on the number of queries whose reads were not the closed form's."""
    here, far = sizes.saving(context), sizes.saving(_LENGTHS[-1])
    said = f"At {context:,} tokens a query reads {_times(here)}, at {_LENGTHS[-1]:,} {_times(far)}"
    if wrong:
        summary = f"{wrong:,.0f} queries read another number of keys than their sizes say: the kernel is wrong."
    else:
        summary = f"{said}; every count is that of the sizes."
    plot = Plot(
        "Keys that a query reads",
        "visible tokens",
        "keys",
        series=(
            Series("sparse", _LENGTHS, tuple(sum(sizes.reads(length)) for length in _LENGTHS)),
            Series("dense", _LENGTHS, _LENGTHS),
        ),
        log_x=True,
        log_y=True,
    )
    values = {"mismatches": wrong, "saving_at_context": here, "saving_at_65536": far}
    return answer("fail" if wrong else "pass", summary, values, {"mismatches": 0}, (plot,))


def _times(saving: float) -> str:
    return (
        f"{saving:.1f} times fewer keys than dense attention" if saving >= 1.0 else f"{1.0 / saving:.1f} times as many"
    )
