"""Chunks on disk: interruption, damage, completeness, and the unfolding."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from trainables.errors import DataCorrupt
from trainables.spacing_mdn.data import riemann_siegel, zeros


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 500 from zero 5,001 on, presented as if they were the first: no low zeros to wait for."""
    made = []

    def make(index):
        made.append(index)
        return riemann_siegel.solve(5_001 + index * 500, 500)

    monkeypatch.setattr(zeros, "_CHUNK", 500)
    monkeypatch.setattr(zeros, "_make_chunk", make)
    monkeypatch.setattr(zeros, "check_complete", lambda _: "")
    return made


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_cut_off_generation_goes_on_and_ends_in_the_same_bytes(small_chunks, tmp_path):
    whole = zeros.ordinates(1_900, tmp_path / "whole")
    small_chunks.clear()

    def cut(done, total):
        assert total == 1_900
        if done == 1_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zeros.ordinates(1_900, tmp_path / "cut", cut)
    assert small_chunks == [0, 1]
    np.testing.assert_array_equal(zeros.ordinates(1_900, tmp_path / "cut"), whole)
    assert small_chunks == [0, 1, 2, 3]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_cut_inside_a_write_leaves_no_chunk(small_chunks, tmp_path, monkeypatch):
    def fail(_):
        raise OSError("disk is gone")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is gone"):
        zeros.ordinates(500, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:900] + b"\0" + b[901:], lambda b: b""])
def test_damaged_chunk_is_made_again(small_chunks, tmp_path, damage):
    whole = zeros.ordinates(1_000, tmp_path)
    before = contents(tmp_path)
    path = tmp_path / "zeros-0000501.npy"
    path.write_bytes(damage(path.read_bytes()))
    small_chunks.clear()
    np.testing.assert_array_equal(zeros.ordinates(1_000, tmp_path), whole)
    assert small_chunks == [1]
    assert contents(tmp_path) == before


def test_progress_ends_at_the_total(small_chunks, tmp_path):
    seen = []
    zeros.ordinates(1_200, tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == [(500, 1_200), (1_000, 1_200), (1_200, 1_200)]


def test_a_missing_zero_is_noticed(small_chunks, tmp_path, monkeypatch):
    monkeypatch.setattr(zeros, "check_complete", lambda _: "9 of them lie below 3 where zeta has 10")
    with pytest.raises(DataCorrupt, match="zeta has 10"):
        zeros.ordinates(500, tmp_path)


def test_check_complete(zeros_100k):
    assert zeros.check_complete(zeros_100k) == ""
    assert zeros.check_complete(zeros_100k[:50]) == ""
    assert "where zeta has" in zeros.check_complete(np.delete(zeros_100k, 54_321))
    assert "ascending" in zeros.check_complete(zeros_100k[::-1])


def test_known_ordinates(zeros_100k):
    assert zeros_100k[0] == pytest.approx(14.134725141734693790, abs=4e-15)
    assert zeros_100k[99_999] == pytest.approx(74920.827498994, abs=1e-9)
    assert len(zeros_100k) == 100_000


def test_low_zeros_meet_the_solved_ones(zeros_100k):
    low = riemann_siegel.solve(1001, 20)
    np.testing.assert_allclose(zeros_100k[1_000:1_020], low, rtol=0, atol=2e-12)
    assert 0.0 < zeros_100k[1_000] - zeros_100k[999] < 3.0


def test_unfold_is_the_smooth_count():
    assert zeros.unfold(np.array([2 * math.pi * math.e]))[0] == pytest.approx(0.0, abs=1e-15)
    heights = np.array([20.0, 21.0, 1000.5, 1001.0])
    np.testing.assert_allclose(zeros.unfolded_spacings(heights), np.diff(zeros.unfold(heights)), rtol=1e-11)
