"""All features of a config along a series: computed once, fitted on the training split, and kept beside the data.

A row belongs to a position: it is known once the spacing at the position is, and speaks of the next. What is learnt
for it (`Numbers`) comes from the training rows alone and travels with a model's weights.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.arrays import Array
from trainables.files import write_atomic
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.features import field, heights, inferred, online_ar, prime_lines
from trainables.spacing_mdn.features.options import BANKS, LINE_CHANNELS, FeatureFields, channels_of_features

_SCHEMA = 1
_DIGEST_BYTES = 32
_FIELDS = tuple(name for name in FeatureFields.model_fields if name != "train_blocks")


@dataclass(frozen=True)
class Numbers:
    """What features of a config take from its training split, as one vector.

    Attributes:
        regression: (1 + LAGS,) of the field ahead on residuals; empty without lines.
        offset: (1 + predictors,) of the next spacing on the predictions, intercept first.
        spread: root mean square of the spacings about the offset.
        mean, std: (channels,) that channels are standardised by.
    """

    regression: Array
    offset: Array
    spread: float
    mean: Array
    std: Array

    def packed(self) -> Array:
        """All of them, one after the other."""
        return np.concatenate([self.regression, self.offset, [self.spread], self.mean, self.std])

    @staticmethod
    def unpacked(values: Array, fields: FeatureFields) -> Numbers:
        """From `packed`."""
        channels, lags = channels_of_features(fields), (prime_lines.LAGS + 1) * bool(fields.prime_lines)
        cuts = np.cumsum([lags, 1 + _num_predictors(fields), 1, channels])
        regression, offset, spread, mean, std = np.split(values, cuts)
        return Numbers(regression, offset, float(spread[0]), mean, std)


@dataclass(frozen=True)
class Features:
    """Rows of a series.

    Attributes:
        first: rows before it lack a part of their past and hold zeros.
        offset: (n,) of the next spacing, in closed form: what the mixture's means are relative to.
        channels: (n, channels) standardised.
    """

    first: int
    offset: NDArray[np.float32]
    channels: NDArray[np.float32]
    numbers: Numbers


def _num_predictors(fields: FeatureFields) -> int:
    return len(BANKS[fields.ar_bank]) + bool(fields.prime_lines)


@dataclass(frozen=True)
class Raw:
    """Features before anything is learnt: the fits of the bank, and the field ahead."""

    bank: tuple[online_ar.OnlineFit, ...]
    field: field.Ahead | None

    @property
    def first(self) -> int:
        """The first position at which all of them are defined."""
        firsts = [fit.first for fit in self.bank] + ([self.field.first] if self.field else [])
        return max(firsts)


def compute(fields: FeatureFields, spacings: Array, log_height: Array, *, anchor: int = 0) -> Raw:
    """Run every fit along a contiguous series.

    Args:
        spacings: (n,).
        log_height: (blocks,) of the zeros where blocks of 256 spacings start; the last may be short. Not looked at
            with ``height_source = "inferred"``.
        anchor: fits are made at positions equal to it modulo ``refit_every``.
    """
    bank = tuple(
        online_ar.fit_online(spacings, order, window, fields.refit_every, anchor=anchor)
        for order, window in BANKS[fields.ar_bank]
    )
    if not fields.prime_lines:
        return Raw(bank, None)
    lines = prime_lines.lines_up_to(fields.prime_lines)
    window, noise = fields.prime_window, fields.prime_noise
    if fields.height_source == "inferred":
        every = (fields.refit_every, fields.height_every)
        fits, along = inferred.fitted_anywhere(spacings, lines, window, noise, *every, anchor=anchor)
        return Raw(bank, field.ahead(fits, lines, along.times, along.log_height))
    exact = fields.prime_phases == "exact"
    known = log_height if exact else heights.rounded(log_height, fields.height_rounding)
    at = heights.heights_of(spacings, known, BLOCK, exact=exact)
    if exact:
        runs = prime_lines.exact(at.times, at.counts, lines, fields.refit_every)
    else:
        runs = prime_lines.fitted(at.times, at.counts, lines, window, noise, fields.refit_every, anchor=anchor)
    return Raw(bank, field.ahead(runs, lines, at.times, at.log_height))


def learn(fields: FeatureFields, raw: Raw, spacings: Array, until: int) -> Numbers:
    """Fit what is learnt on the rows whose target lies below position ``until``."""
    first = raw.first
    if until - first < 2 * (prime_lines.LAGS + 2):
        raise ValueError(f"{until} spacings to learn from, of which {first} have no whole past: too few")
    regression = np.zeros(0)
    if raw.field is not None:
        regression = field.fit_regression(raw.field, slice(first - raw.field.first, until - 1 - raw.field.first))
    predictions, channels = _assembled(fields, raw, regression)
    rows = until - 1 - first
    design = np.concatenate([np.ones((rows, 1)), predictions[:rows]], axis=1)
    target = spacings[first + 1 : until]
    offset = np.linalg.lstsq(design, target, rcond=None)[0]
    spread = float(np.sqrt(np.mean((target - design @ offset) ** 2)))
    std = channels[:rows].std(axis=0)
    return Numbers(regression, offset, max(spread, 1e-6), channels[:rows].mean(axis=0), np.where(std > 1e-6, std, 1.0))


def assemble(fields: FeatureFields, raw: Raw, numbers: Numbers, length: int) -> Features:
    """Rows of a series of ``length`` spacings from what was computed and what was learnt."""
    predictions, channels = _assembled(fields, raw, numbers.regression)
    offset = np.ones(length, dtype=np.float32)
    offset[raw.first :] = numbers.offset[0] + predictions @ numbers.offset[1:]
    rows = np.zeros((length, channels.shape[1]), dtype=np.float32)
    rows[raw.first :] = (channels - numbers.mean) / numbers.std
    return Features(raw.first, offset, rows, numbers)


def _assembled(fields: FeatureFields, raw: Raw, regression: Array) -> tuple[Array, Array]:
    """(rows, predictors) and (rows, channels) from `Raw.first` on."""
    first = raw.first
    predictions, channels = [], []
    for fit in raw.bank:
        own = slice(first - fit.first, None)
        predictions.append(fit.prediction[own])
        channels += [fit.prediction[own, None] - 1.0, np.log(fit.sigma[own, None]), fit.residuals[own]]
    if raw.field is not None:
        own = slice(first - raw.field.first, None)
        s, ahead = field.channels(raw.field, regression)
        predictions.append(s[own])
        channels.append(ahead[own] if fields.prime_grid else ahead[own, :LINE_CHANNELS])
    return np.stack(predictions, axis=1), np.concatenate(channels, axis=1)


def features(
    fields: FeatureFields, spacings: Array, log_height: Array, until: int, *, digest: str, folder: Path
) -> Features:
    """Features of a whole data set, made once for all configs that differ in nothing that they depend on.

    Args:
        until: spacings of the training split, from the start.
        digest: of the data set. With the fields it names a file below ``folder``, which ends with its own SHA-256: one
            that is damaged is made again. Processes that want the same file at once make it one after the other.
        folder: of the data set; where it is not there or cannot be written to, nothing is kept.
    """

    def make() -> Features:
        raw = compute(fields, spacings, log_height)
        return assemble(fields, raw, learn(fields, raw, spacings, until), len(spacings))

    if not folder.is_dir():
        return make()
    key = {"schema": _SCHEMA, "data": digest, "spacings": len(spacings), "until": until}
    key |= {name: getattr(fields, name) for name in _FIELDS}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    path = folder / "features" / f"{name}.npz"
    with _alone(path):
        kept = _read(path, fields)
        if kept is None:
            kept = make()
            with suppress(OSError):  # a data folder that is read only: made again by the next one
                _write(path, kept)
        return kept


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock beside ``path``, where there can be one."""
    try:
        path.parent.mkdir(exist_ok=True)
        lock = path.with_suffix(".lock").open("a")
    except OSError:
        yield
        return
    with lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, table: Features) -> None:
    body = io.BytesIO()
    numbers = table.numbers.packed()
    np.savez(body, first=table.first, offset=table.offset, channels=table.channels, numbers=numbers)
    write_atomic(path, body.getvalue() + hashlib.sha256(body.getvalue()).digest(), durable=False)


def _read(path: Path, fields: FeatureFields) -> Features | None:
    """The table, or None if there is none that is whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        return None
    kept = np.load(io.BytesIO(body), allow_pickle=False)
    numbers = Numbers.unpacked(kept["numbers"], fields)
    return Features(int(kept["first"]), kept["offset"], kept["channels"], numbers)
