"""Does the model find again what it has read, and from how far?

What it is: a passage of random letters is put into sampled text, and its beginning once more at the end, some distance
later; how much likelier the rest of the passage is than with other letters in its place. Distances within the window
and beyond it are told apart: beyond it, only the selected and the compressed branch can help.
What it is not: a test of understanding. A model that copies from no distance is too young to say anything.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, shown
from analysis.nsa.looked import NOT_FINITE
from analysis.stats.bootstrap import mean_interval
from analysis.stats.interval import Interval

_CUE, _REST = 6, 6
_SEQUENCES = 16
_SEED = 14


@diagnostic("retrieval by distance")
def needle(subject: Any) -> Finding:
    """Return a finding with values ``gain_at_<distance>``: nats per token by which the passage is likelier once it has
    been read, for distances in tokens."""
    config, task = subject.config, subject.task
    texts = subject.sample.at_most(_SEQUENCES).sequences
    places = distances(texts.shape[1])
    if len(texts) < 4 or not places:
        raise NoEvidence("Sampled sequences are too few or too short for a passage and its return.")
    gains: dict[int, Interval] = {}
    for distance in places:
        with_it, without = planted(texts, distance, config.vocab_size)
        scores = [task.score(rows)[:, -_REST:].mean(dim=1).cpu().numpy() for rows in (with_it, without)]
        require_finite(NOT_FINITE, *scores)
        gains[distance] = mean_interval(scores[1] - scores[0], block=1)
    return judge(gains, config.window if config.attn == "nsa" else 0)


def distances(time: int) -> list[int]:
    """Powers of two that leave room for the passage twice."""
    return [2**n for n in range(4, 17) if 2**n + 2 * (_CUE + _REST) < time]


def planted(texts: Tensor, distance: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Texts that end with a passage which stood ``distance`` tokens before, and with one that did not stand there."""
    generator = torch.Generator().manual_seed(_SEED)
    drawn = torch.randint(min(256, vocabulary), (2, len(texts), _CUE + _REST), generator=generator)
    passage, other = drawn
    length = _CUE + _REST
    with_it, without = texts.clone(), texts.clone()
    start = texts.shape[1] - length - distance
    with_it[:, -length:] = without[:, -length:] = passage
    with_it[:, start : start + length] = passage
    without[:, start : start + length] = other
    return with_it, without


def judge(gains: dict[int, Interval], window: int) -> Finding:
    """The finding on gains by distance; ``window`` of a sparse model, 0 of a dense one."""
    values: dict[str, Value] = {f"gain_at_{distance}": gain for distance, gain in gains.items()}
    found = [distance for distance, gain in gains.items() if gain.low > 0.0]
    beyond = [distance for distance in gains if distance > window]
    verdict: Verdict
    if not found:
        verdict, said = "no_evidence", "What was read is no likelier at any distance: the model does not copy (yet)"
    elif not beyond or any(distance in found for distance in beyond):
        verdict = "pass"
        far = max(found)
        said = f"What was read is likelier from up to {far:,} tokens away ({shown(gains[far])} nats per token)"
    else:
        verdict = "warn"
        said = f"What was read is likelier within the window of {window:,} tokens only: no other branch retrieves"
    places = tuple(gains)
    plot = Plot(
        "How much likelier a passage is once it was read",
        "distance in tokens",
        "nats per token",
        "points",
        (Series.of("sampled texts", list(gains.values()), places),),
        lines={"nothing": 0.0},
        log_x=True,
    )
    return answer(verdict, f"{said}.", values, {}, (plot,))
