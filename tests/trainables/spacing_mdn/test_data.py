"""Data sets on disk: splits, facts, digests, damage."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trainables.errors import DataCorrupt, DataError, DataMissing
from trainables.spacing_mdn.data import source, spacings
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.source import SOURCE
from trainables.spacing_mdn.data.spacings import load


def joined(name, data_dir):
    parts = load(name, data_dir)
    return np.concatenate([part.spacings for part in (parts.train, parts.val, parts.test)])


@pytest.fixture
def copied(first100k_dir, tmp_path):
    """A copy of first100k, and the path of its file, to be damaged."""
    folder = tmp_path / "spacing_mdn"
    folder.mkdir()
    for suffix in ("npy", "json"):
        content = (first100k_dir / "spacing_mdn" / f"first100k.{suffix}").read_bytes()
        (folder / f"first100k.{suffix}").write_bytes(content)
    return tmp_path, folder / "first100k.npy"


def test_splits_of_first100k(first100k_dir, zeros_100k):
    loaded = load("first100k", first100k_dir)
    sizes = [(len(part.spacings) // BLOCK, len(part.log_height)) for part in (loaded.train, loaded.val, loaded.test)]
    assert sizes == [(312, 312), (39, 39), (39, 39)]
    assert loaded.train.spacings.dtype == loaded.train.log_height.dtype == np.float64
    heights = np.concatenate([part.log_height for part in (loaded.train, loaded.val, loaded.test)])
    np.testing.assert_allclose(heights, np.log(zeros_100k[: 390 * BLOCK : BLOCK] / (2 * np.pi)), rtol=1e-13)
    assert loaded.digest == SOURCE.digest("first100k", first100k_dir)


def test_facts_of_first100k(first100k_dir):
    series = joined("first100k", first100k_dir)
    assert series.var() == pytest.approx(0.1607, abs=1e-4)
    assert np.corrcoef(series[1:], series[:-1])[0, 1] == pytest.approx(-0.357, abs=5e-4)
    assert series.mean() == pytest.approx(1.0, abs=1e-4)


def test_log_height_per_point_repeats_the_block(first100k_dir):
    val = load("first100k", first100k_dir).val
    heights = val.log_height_per_point()
    assert heights.shape == val.spacings.shape
    assert set(heights[BLOCK : 2 * BLOCK]) == {val.log_height[1]}


def test_loaded_arrays_are_read_only(first100k_dir):
    with pytest.raises(ValueError, match="read-only"):
        load("first100k", first100k_dir).train.spacings[0] = 0.0


def test_prepare_leaves_a_sound_set_alone(copied):
    data_dir, path = copied
    before = path.stat().st_mtime_ns
    assert SOURCE.prepare("first100k", data_dir) == path
    assert path.stat().st_mtime_ns == before
    assert not (data_dir / "spacing_mdn" / "zeros").exists()


@pytest.mark.parametrize("edit", [lambda b: b[:-8], lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:]])
def test_damage_names_both_digests_and_the_way_out(copied, edit):
    data_dir, path = copied
    recorded = SOURCE.digest("first100k", data_dir)
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(DataCorrupt, match="tune-rh data spacing_mdn --size first100k") as error:
        load("first100k", data_dir)
    assert recorded in str(error.value)
    assert source.hashlib.sha256(path.read_bytes()).hexdigest() in str(error.value)


def test_prepare_makes_a_damaged_set_again(copied, zeros_100k, monkeypatch):
    data_dir, path = copied
    sound = path.read_bytes()
    path.write_bytes(sound[:-8])
    monkeypatch.setattr(spacings.zeros, "ordinates", lambda count, folder, progress: zeros_100k[:count])
    SOURCE.prepare("first100k", data_dir)
    np.testing.assert_allclose(joined("first100k", data_dir), np.load(path)["spacings"].ravel(), rtol=0)
    assert len(path.read_bytes()) == len(sound)


def test_sidecar_without_digest_is_corrupt(copied):
    data_dir, path = copied
    path.with_suffix(".json").write_text("{")
    with pytest.raises(DataCorrupt, match="side-car"):
        load("first100k", data_dir)


def test_file_of_another_shape_is_corrupt_even_with_a_fitting_digest(copied):
    data_dir, path = copied
    np.save(path, np.zeros(7))
    digest = source.hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"sha256": digest}))
    with pytest.raises(DataCorrupt, match=r"expected \(390,\)"):
        load("first100k", data_dir)


def test_missing_set_names_the_command(tmp_path):
    with pytest.raises(DataMissing, match="tune-rh data spacing_mdn --size full"):
        load("full", tmp_path)
    with pytest.raises(DataMissing, match="tune-rh data spacing_mdn --size gue"):
        SOURCE.digest("gue", tmp_path)


@pytest.mark.parametrize("call", [load, SOURCE.prepare, SOURCE.digest])
def test_unknown_name_lists_the_known(call, tmp_path):
    with pytest.raises(DataError, match="first100k, full, gue, shuffled"):
        call("first1m", tmp_path)


def test_gue_has_the_shape_of_first100k_and_no_height(tmp_path, monkeypatch):
    monkeypatch.setattr(spacings.gue, "spacings", lambda count, seed, progress: np.ones(count))
    SOURCE.prepare("gue", tmp_path)
    loaded = load("gue", tmp_path)
    assert [len(part.log_height) for part in (loaded.train, loaded.val, loaded.test)] == [312, 39, 39]
    assert not loaded.test.log_height.any()


def test_shuffled_has_the_spacings_of_first100k_and_no_order(first100k_dir):
    SOURCE.prepare("shuffled", first100k_dir)
    loaded, series = load("shuffled", first100k_dir), joined("shuffled", first100k_dir)
    np.testing.assert_array_equal(np.sort(series), np.sort(joined("first100k", first100k_dir)))
    # Of independent values a correlation has a standard error of one over the root of their number.
    correlations = [np.corrcoef(series[lag:], series[:-lag])[0, 1] for lag in range(1, 65)]
    assert np.sqrt(len(series)) * np.abs(correlations).max() < 4.0
    assert not any(part.log_height.any() for part in (loaded.train, loaded.val, loaded.test))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_facts_of_full(data_dir):
    SOURCE.prepare("full", data_dir)
    loaded = load("full", data_dir)
    assert [len(part.log_height) for part in (loaded.train, loaded.val, loaded.test)] == [6645, 390, 781]
    series = joined("full", data_dir)
    assert series.var() == pytest.approx(0.1661, abs=1e-4)
    assert np.corrcoef(series[1:], series[:-1])[0, 1] == pytest.approx(-0.349, abs=5e-4)
    assert (series.argmin() + 1, round(float(series.min()), 5)) == (1_115_578, 0.00545)
    assert (series.argmax() + 1, round(float(series.max()), 4)) == (1_493_008, 3.3035)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_facts_of_gue(data_dir):
    SOURCE.prepare("gue", data_dir)
    series = joined("gue", data_dir)
    assert series.var() == pytest.approx(0.180, abs=0.004)
    assert np.corrcoef(series[1:], series[:-1])[0, 1] == pytest.approx(-0.31, abs=0.01)
