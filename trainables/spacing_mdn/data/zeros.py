"""Ordinates of the first zeta zeros on disk, made chunk by chunk, and their unfolded spacings.

The cache around `riemann_siegel`. Every chunk is written atomically and ends with its own SHA-256, so that making them
can be cut off anywhere and goes on at the next missing chunk; whatever is damaged is made again. Zeros below
`riemann_siegel.FIRST_ZERO` come from flint, certified.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import flint
import numpy as np

from trainables.api import Progress
from trainables.arrays import Array
from trainables.errors import DataCorrupt
from trainables.files import write_atomic
from trainables.spacing_mdn.data import riemann_siegel

_CHUNK = 20_000
"""Zeros in a chunk; a chunk takes a few tenths of a second."""
_DIGEST_BYTES = 32
_MEAN_SPACING = (0.9999, 1.0001)


def ordinates(count: int, cache_dir: Path, progress: Progress | None = None) -> Array:
    """The first ``count`` ordinates, ascending; makes the chunks that ``cache_dir`` lacks and keeps them there.

    ``progress`` is called after each chunk. Raises `DataCorrupt` if the zeros at hand fail `check_complete`.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    chunks = []
    for index in range(-(-count // _CHUNK)):
        path = cache_dir / f"zeros-{index * _CHUNK + 1:07d}.npy"
        chunk = _read_chunk(path)
        if chunk is None:
            chunk = _make_chunk(index)
            _write_chunk(path, chunk)
        chunks.append(chunk)
        if progress is not None:
            progress(min(count, (index + 1) * _CHUNK), count)
    result = np.concatenate(chunks)[:count]
    problem = check_complete(result)
    if problem:
        raise DataCorrupt(f"zeros in {cache_dir}: {problem}; remove the folder to make them anew")
    return result


def unfold(height: Array) -> Array:
    """u(g) = g/(2 pi) ln(g/(2 pi e)): the smooth count of zeros below g, less 7/8. The spacings of u have mean 1."""
    turns = height / (2.0 * np.pi)
    result: Array = turns * (np.log(turns) - 1.0)
    return result


def unfolded_spacings(zeros: Array) -> Array:
    """(n - 1,): u(g[k+1]) - u(g[k]), in a form that does not subtract two large counts."""
    low, high = zeros[:-1], zeros[1:]
    gap = high - low
    result: Array = (gap * (np.log(high / (2.0 * np.pi)) - 1.0) + low * np.log1p(gap / low)) / (2.0 * np.pi)
    return result


def check_complete(zeros: Array) -> str:
    """What is wrong with ``zeros`` as the first ones of zeta, in a clause; empty if nothing is.

    Compares the number of zeros below ten heights with flint's certified count, each height halfway between two
    neighbours, and bounds the mean spacing (from 10,000 zeros on; fewer fluctuate more).
    """
    if not (np.isfinite(zeros).all() and (np.diff(zeros) > 0.0).all()):
        return "they are not strictly ascending"
    for count in sorted({len(zeros) * tenth // 10 for tenth in range(1, 11)} - {0}):
        height = 0.5 * (zeros[count - 1] + zeros[count]) if count < len(zeros) else zeros[-1] + 1e-9 * zeros[-1]
        certified = flint.arb(float(height)).zeta_nzeros().unique_fmpz()
        if certified != count:
            return f"{count} of them lie below {height:.9f} where zeta has {certified}"
    mean = float(np.mean(unfolded_spacings(zeros))) if len(zeros) >= 10_000 else 1.0
    if not _MEAN_SPACING[0] <= mean <= _MEAN_SPACING[1]:
        return f"their mean unfolded spacing is {mean:.6f}, outside {list(_MEAN_SPACING)}"
    return ""


def _make_chunk(index: int) -> Array:
    first = index * _CHUNK + 1
    num_low = max(0, riemann_siegel.FIRST_ZERO - first)
    if not num_low:
        return riemann_siegel.solve(first, _CHUNK)
    with flint.ctx.workprec(96):
        low = [float(zero.imag) for zero in flint.acb.zeta_zeros(first, min(num_low, _CHUNK))]
    if num_low >= _CHUNK:
        return np.array(low)
    return np.concatenate([low, riemann_siegel.solve(first + num_low, _CHUNK - num_low)])


def _write_chunk(path: Path, chunk: Array) -> None:
    body = io.BytesIO()
    np.save(body, chunk)
    write_atomic(path, body.getvalue() + hashlib.sha256(body.getvalue()).digest())


def _read_chunk(path: Path) -> Array | None:
    """The chunk, or None if there is none that is whole."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        return None
    chunk: Array = np.load(io.BytesIO(body), allow_pickle=False)
    return chunk if chunk.shape == (_CHUNK,) else None
