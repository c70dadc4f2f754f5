"""What a language model has to beat on the next token, measured on the run's own packed text.

Predictors without gradients (counts and a compressor), each scored in nats per token. N-grams and the cache see what
the model sees: the packed tokens before the target, ends of text included. Compute is not matched: a 5-gram that wins
says that the model is still small or young.

Fitted baselines see only the splits before the scored one: train for val, train and val for test. Targets are all
tokens of the split but its first; given a config, those of the very sequences that its models are evaluated on, with no
more before a target than its sequence has. Then a baseline and an ``eval_loss`` (or ``test_eval_loss``) differ on equal
targets.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.diagnose.api import Baseline
from analysis.language.kneser_ney import NGrams, Tokens
from trainables.api import Split
from trainables.arrays import Array
from trainables.text.source import TextData, TextSplit, load, tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_ORDERS = (1, 2, 3, 5)
_REACHES = (64, 128, 256, 512)  # tokens before a target that a cache may count; settled on held-out documents
_MAX_TOKENS = 16_000_000  # that n-grams are counted on: 50 MB of text; of more, whole documents, evenly spread
_MAX_TARGETS = 2_000_000  # tokens that are scored without a config; of more, whole documents again
_MAX_XZ_BYTES = 48_000_000  # that the compressor has seen before: more takes over a gigabyte of memory
_TENTH = 10
_NAMES = {1: "unigram", 2: "bigram", 3: "trigram"}


@dataclass(frozen=True)
class Text:
    """Documents one after the other, as `trainables.text.source.TextSplit` has them."""

    tokens: NDArray[np.unsignedinteger[Any]]
    starts: NDArray[np.int64]

    def only(self, chosen: NDArray[np.bool_]) -> Text:
        """The chosen ones of its documents."""
        lengths = np.diff(self.starts, append=len(self.tokens))
        starts = np.concatenate([[0], np.cumsum(lengths[chosen])[:-1]]).astype(np.int64)
        return Text(self.tokens[np.repeat(chosen, lengths)], starts)

    def at_most(self, tokens: float) -> Text:
        """Documents evenly spread, with about so many tokens together; all of them if there are no more."""
        share = tokens / len(self.tokens)
        if share >= 1.0:
            return self
        place = np.arange(len(self.starts) + 1)
        chosen = np.diff(np.floor(place * share)) > 0.0
        chosen[0] |= not chosen.any()
        return self.only(chosen)


def baselines(
    dataset: str, data_dir: Path, *, split: Split = "test", config: Mapping[str, Any] | None = None
) -> list[Baseline]:
    """Score every baseline on one split of a data set, in nats per token; see `analysis.diagnose.api.Baselines`.

    The ``context`` and ``eval_sequences`` of a config say which sequences are scored.
    """
    data = load(dataset, data_dir)
    return list(_baselines(data, split, tokenizer(dataset, data_dir), config))


def _baselines(
    data: TextData, split: Split, encoder: Tokenizer, config: Mapping[str, Any] | None
) -> Iterator[Baseline]:
    whole, target = _below(data, split), _text(data.split(split))
    rows, scored = _targets(target, config)
    yield Baseline("uniform", math.log(data.vocab_size), f"one of {data.vocab_size:,} tokens, nothing fitted; {scored}")
    below = whole.at_most(_MAX_TOKENS)
    counted = _of(len(below.tokens), len(whole.tokens), "tokens")
    given = NGrams(below.tokens, data.vocab_size, max(_ORDERS)).probabilities(rows)
    for order in _ORDERS:
        note = f"modified Kneser-Ney on {counted} below; {scored}"
        yield Baseline(_NAMES.get(order, f"{order}-gram"), _nll(given[order - 1]), note)
    yield _cache(below, rows, given[-1], data.vocab_size, scored)
    yield _xz(whole, target, encoder)


def cache_share(rows: Tokens, reach: int) -> Array:
    """(rows, length - 1) how often all tokens but the first stand among the last ``reach`` of their row, as a share."""
    num, length = rows.shape
    place = np.arange(length)
    # The same token in the same row has keys that follow one upon the other, in the order of places.
    base = (np.arange(num)[:, None] * (int(rows.max()) + 1) + rows.astype(np.int64)) * length
    keys = np.sort((base + place).ravel())
    before = np.searchsorted(keys, base + place) - np.searchsorted(keys, base + np.maximum(place - reach, 0))
    return np.asarray(before[:, 1:] / np.minimum(place, reach)[1:])


def mixing_weight(first: Array, second: Array) -> float:
    """The weight of ``second`` that makes a mixture of two predictors likeliest, by expectation maximisation."""
    weight = 0.5
    for _ in range(50):
        weight = float(np.mean(weight * second / ((1.0 - weight) * first + weight * second)))
    return weight


def xz_bits(before: bytes, text: bytes) -> int:
    """Bits that ``text`` adds to an xz stream after ``before``: preset 9e with a dictionary that covers all of it."""
    return 8 * (_xz_size(before + text) - _xz_size(before))


def _cache(below: Text, rows: Tokens, given: Array, vocab_size: int, scored: str) -> Baseline:
    """The longest n-gram mixed with a cache, whose reach and weight are settled on documents held out below."""
    order = max(_ORDERS)
    fitted, unseen = _held_out(below)
    ngram = NGrams(fitted, vocab_size, order).probabilities(unseen)[-1]
    best = (math.inf, 0, 0.0)
    for reach in _REACHES:
        share = cache_share(unseen, reach)
        weight = mixing_weight(ngram, share)
        best = min(best, (_nll((1.0 - weight) * ngram + weight * share), reach, weight))
    _, reach, weight = best
    mixed = (1.0 - weight) * given + weight * cache_share(rows, reach)
    note = (
        f"{weight:.3f} of it by the share among the last {reach} tokens, fitted on a tenth of what is below; {scored}"
    )
    return Baseline(f"{order}-gram and cache", _nll(mixed), note)


def _held_out(text: Text) -> tuple[Tokens, Tokens]:
    """Nine tenths of the documents (of the tokens, if documents are few), and one row of the rest."""
    if len(text.starts) < _TENTH:
        cut = len(text.tokens) - len(text.tokens) // _TENTH
        return text.tokens[:cut], text.tokens[None, cut:]
    last = np.arange(len(text.starts)) % _TENTH == _TENTH - 1
    return text.only(~last).tokens, text.only(last).tokens[None]


def _xz(whole: Text, target: Text, encoder: Tokenizer) -> Baseline:
    """The compressor reads text, documents parted by a zero byte, and is told in nats per token all the same."""
    text = _decoded(target, encoder)
    bytes_per_token = len(text) / len(target.tokens)
    below = whole.at_most(_MAX_XZ_BYTES / bytes_per_token)
    before = _decoded(below, encoder)
    bits = xz_bits(before, text)
    note = (
        f"text after {_of(len(below.tokens), len(whole.tokens), 'tokens')} below, whole split; "
        f"{bits / len(text):.2f} bits per byte"
    )
    return Baseline("xz -9e", bits * math.log(2.0) / len(target.tokens), note)


def _xz_size(content: bytes) -> int:
    options = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": max(len(content), 4096)}
    return len(lzma.compress(content, format=lzma.FORMAT_RAW, filters=[options]))


def _decoded(text: Text, encoder: Tokenizer) -> bytes:
    documents = np.split(text.tokens, text.starts[1:])
    decoded = encoder.decode_batch([document[:-1].tolist() for document in documents], skip_special_tokens=False)
    return b"".join(document.encode() + b"\0" for document in decoded)


def _targets(target: Text, config: Mapping[str, Any] | None) -> tuple[Tokens, str]:
    """Rows whose tokens but the first are scored, and what they are."""
    if config is None:
        some = target.at_most(_MAX_TARGETS)
        return some.tokens[None], f"scored on {_of(len(some.tokens), len(target.tokens), 'tokens')}"
    import torch  # only to read what evaluation reads

    from trainables.language.sequences import Sequences

    source = Sequences(target.tokens, config["context"])
    rows = source.read(source.spread(config["eval_sequences"]), torch.device("cpu")).numpy()
    return rows, f"scored on {len(rows):,} sequences of {config['context']:,} tokens"


def _text(split: TextSplit) -> Text:
    return Text(np.asarray(split.tokens), split.document_starts)


def _below(data: TextData, split: Split) -> Text:
    """All text before a split."""
    train = _text(data.train)
    if split == "val":
        return train
    val = _text(data.val)
    starts = np.concatenate([train.starts, val.starts + len(train.tokens)])
    return Text(np.concatenate([train.tokens, val.tokens]), starts)


def _of(some: int, every: int, what: str) -> str:
    return f"{every:,} {what}" if some == every else f"{some:,} of {every:,} {what} (whole documents, evenly spread)"


def _nll(probabilities: Array) -> float:
    return -float(np.mean(np.log(probabilities)))
