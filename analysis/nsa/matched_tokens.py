"""At equal tokens, which is better: sparse attention or its dense twin? See `analysis.language.twins`."""

from __future__ import annotations

from analysis.diagnose.api import Finding, diagnostic
from analysis.language.twins import Subject, at_equal_tokens
from analysis.view import Run


@diagnostic("Loss at equal tokens: sparse attention against dense", needs="records")
def matched_tokens(run: Run) -> Finding:
    """Return a finding with the values of `at_equal_tokens`."""
    return at_equal_tokens(run, Subject("sparse attention", "is", "does"))
