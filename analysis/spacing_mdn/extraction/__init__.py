"""What a winner of `spacing_mdn` has learnt, as formulas: lines of the primes in its mean, and a sparse closed form.

Formulas are fitted to the mean that the model predicts along the validation split, and scored along the test split.
"""

from __future__ import annotations

from typing import Any

from analysis.extraction import Extraction


def extract(subject: Any) -> Extraction:
    """Extract from a trained model: `trainables.api.Family.extraction`; raises `analysis.extraction.NoFormula`."""
    from analysis.spacing_mdn.extraction.found import find
    from analysis.spacing_mdn.extraction.told import told

    return told(find(subject.task))
