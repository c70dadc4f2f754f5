"""Killed, and failing at calls to files drawn from all there are: a resume makes the result what it would have been."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults import campaign


def disturbed(num_kills: int, share: float, seed: int) -> dict[str, Any]:
    """What a campaign found."""
    with campaign.scratch() as folder:
        summary = campaign.start(num_kills, share, seed, folder)
    if summary is None:
        pytest.skip("no C compiler (cc) is here to build what makes calls to files fail")
    return summary


def test_a_share_of_all_faults() -> None:
    summary = disturbed(num_kills=6, share=0.01, seed=1)
    assert summary["bad"] == []
    assert {"kills", "EIO", "ENOSPC", "EDQUOT"} < summary["cases"].keys()
    assert summary["writes"] > 100  # the calls are seen
    assert summary["study"] > 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_of_them() -> None:
    summary = disturbed(num_kills=100, share=1.0, seed=0)
    assert summary["bad"] == []
    assert summary["cases"]["kills"] == 100
