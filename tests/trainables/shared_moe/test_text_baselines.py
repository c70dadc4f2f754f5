"""The baselines of text: n-grams by hand and by dictionaries, a cache by counting, a compressor, and who sees what."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.baselines import measure
from analysis.language import baselines
from analysis.language.baselines import Text, cache_share, mixing_weight, xz_bits
from analysis.language.kneser_ney import FALLBACK, NGrams, discounts
from tests.trainables.shared_moe.conftest import MakeTask
from tests.worlds.family import FAMILY
from trainables.text.source import TextData, TextSplit, load

A, B, C, D = range(4)


# --- n-grams ---------------------------------------------------------------------------------------------------------


def slow_discounts(counts: Sequence[int]) -> tuple[float, float, float]:
    n = [sum(count == wanted for count in counts) for wanted in range(5)]
    if 0 in n[1:]:
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    found = (1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3])
    return FALLBACK if any(not 0 <= found[i] <= i + 1 for i in range(3)) else found


def slow_probability(stream: Sequence[int], vocab: int, context: tuple[int, ...], token: int) -> float:
    """From the definition, with dictionaries: raw counts for the whole context, continuations for shorter ones."""
    n = len(context) + 1
    counts = {
        m: Counter(tuple(stream[i : i + m]) for i in range(len(stream) - m + 1)) for m in range(1, len(context) + 2)
    }
    probability = 1.0 / vocab
    for m in range(1, n + 1):
        level: dict[tuple[int, ...], int] = counts[m]
        if m < n:
            level = defaultdict(int)
            for gram in counts[m + 1]:
                level[gram[1:]] += 1
        taken = (0.0, *slow_discounts(list(level.values())))
        history = context[len(context) - m + 1 :]
        after = {gram[-1]: count for gram, count in level.items() if gram[:-1] == history}
        if after:
            freed = sum(taken[min(count, 3)] for count in after.values())
            count = after.get(token, 0)
            probability = (count - taken[min(count, 3)] + freed * probability) / sum(after.values())
    return probability


def test_a_bigram_by_hand() -> None:
    """The stream a b a b a c d a of four tokens; bigrams ab 2, ba 2, ac 1, cd 1, da 1, so discounts fall back.

    After a: ab 2, ac 1. Continuations: a follows b and d, b follows a, c follows a, d follows c; five bigrams in all.
    """
    one, two, _ = FALLBACK
    grams = NGrams(np.array([A, B, A, B, A, C, D, A]), 4, 2)
    freed = (two + 3 * one) / 5
    continuation = {A: (2 - two) / 5 + freed / 4, B: (1 - one) / 5 + freed / 4}
    given_a_b = (2 - two) / 3 + (two + one) / 3 * continuation[B]
    given_a_a = (two + one) / 3 * continuation[A]
    found = grams.probabilities(np.array([[A, B], [A, A]]))[1]
    assert found[:, 0].tolist() == pytest.approx([given_a_b, given_a_a], abs=1e-15)


def test_a_unigram_by_hand() -> None:
    """Counts 4, 2, 1, 1 of eight; what the discounts 1.5, 1, 0.5, 0.5 free is shared by all five tokens."""
    grams = NGrams(np.array([A, B, A, B, A, C, D, A]), 5, 1)
    found = grams.probabilities(np.array([[A, A, B, C, D, 4]]))[0][0]
    assert found.tolist() == pytest.approx([part / 8 + 3.5 / 8 / 5 for part in (2.5, 1.0, 0.5, 0.5, 0.0)], abs=1e-15)


def test_discounts_are_chen_and_goodmans() -> None:
    """n1 = 40, n2 = 10, n3 = 5, n4 = 3: Y = 40 / 60."""
    counts = np.repeat([1, 2, 3, 4, 9], [40, 10, 5, 3, 7])
    y = 2 / 3
    assert discounts(counts) == pytest.approx((1 - 2 * y * 10 / 40, 2 - 3 * y * 5 / 10, 3 - 4 * y * 3 / 5))
    assert discounts(np.array([1, 1, 2, 3])) == FALLBACK
    assert discounts(np.repeat([1, 2, 3, 4], [10, 1, 30, 9])) == FALLBACK


@pytest.mark.parametrize(("vocab", "length", "seed"), [(3, 40, 0), (5, 300, 1), (12, 120, 2), (40, 60, 3)])
def test_all_orders_are_those_of_dictionaries(vocab: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stream = np.minimum(rng.geometric(0.35, length) - 1, vocab - 2)  # the last token is never seen
    rows = rng.integers(0, vocab, (3, 9))
    rows[0] = stream[7:16]
    found = NGrams(stream.astype(np.uint16), vocab, 5).probabilities(rows.astype(np.uint16))
    for n, probabilities in enumerate(found, start=1):
        for row, values in zip(rows.tolist(), probabilities, strict=True):
            for place, value in enumerate(values, start=1):
                if place < n - 1:  # a shorter history: this model has no raw counts for it
                    continue
                context = tuple(row[place - n + 1 : place])
                assert value == pytest.approx(slow_probability(stream.tolist(), vocab, context, row[place]), rel=1e-12)


def test_discounts_of_that_comparison_are_estimated_somewhere() -> None:
    stream = np.minimum(np.random.default_rng(1).geometric(0.35, 300) - 1, 3)
    trigrams = Counter(tuple(stream[i : i + 3].tolist()) for i in range(298))
    assert discounts(np.array(list(trigrams.values()))) != FALLBACK


def test_too_short_a_history_is_left_to_the_shorter_contexts() -> None:
    """The first target of a row has one token before it: a 5-gram gives it its own bigram of continuations."""
    rng = np.random.default_rng(4)
    stream = rng.integers(0, 6, 200)
    grams = NGrams(stream, 6, 5)
    short, longer = np.array([[2, 3]]), np.array([[1, 4, 0, 2, 3]])
    assert len({float(p[0, 0]) for p in grams.probabilities(short)[2:]}) == 1
    by_five = grams.probabilities(longer)[4][0, -1]
    assert by_five == pytest.approx(slow_probability(stream.tolist(), 6, (1, 4, 0, 2), 3), rel=1e-12)


@given(
    stream=st.lists(st.integers(0, 6), min_size=5, max_size=80),
    context=st.lists(st.integers(0, 7), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_probabilities_sum_to_one_after_any_context(stream: list[int], context: list[int]) -> None:
    vocab = 8
    rows = np.array([[*context, token] for token in range(vocab)])
    for probabilities in NGrams(np.array(stream), vocab, 5).probabilities(rows):
        assert probabilities[:, -1].min() > 0.0
        assert probabilities[:, -1].sum() == pytest.approx(1.0, abs=1e-12)


def test_n_grams_refuse() -> None:
    with pytest.raises(ValueError, match="2 tokens are too few for n-grams of 3"):
        NGrams(np.array([0, 1]), 4, 3)
    with pytest.raises(ValueError, match="token 9 is outside a vocabulary of 4"):
        NGrams(np.array([0, 9]), 4, 1)


# --- cache and compressor --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [1, 3, 100])
def test_the_cache_counts_what_stands_before_in_the_same_row(reach: int) -> None:
    rows = np.random.default_rng(0).integers(0, 5, (4, 30)).astype(np.uint16)
    found = cache_share(rows, reach)
    for row, shares in zip(rows.tolist(), found, strict=True):
        for place, share in enumerate(shares, start=1):
            before = row[max(0, place - reach) : place]
            assert share == before.count(row[place]) / len(before)


def test_the_mixing_weight_is_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(2_000), rng.random(2_000)
    weight = mixing_weight(first, second)
    grid = np.linspace(0.001, 0.999, 999)
    likelihood = [np.log((1 - w) * first + w * second).mean() for w in grid]
    assert weight == pytest.approx(grid[int(np.argmax(likelihood))], abs=2e-3)


def test_the_compressor_tells_what_is_new() -> None:
    """Random letters of sixteen have four bits each, and what stood there before has none."""
    letters = np.random.default_rng(0).integers(0, 16, 50_000, dtype=np.uint8).tobytes()
    bits = 4 * len(letters)
    assert xz_bits(b"", letters) == pytest.approx(bits, rel=0.05)
    assert xz_bits(letters, letters) < 0.01 * bits
    assert xz_bits(letters[: len(letters) // 2], letters) == pytest.approx(bits / 2, rel=0.05)


# --- documents -------------------------------------------------------------------------------------------------------


def test_documents_are_taken_whole_and_evenly() -> None:
    lengths = np.array([3, 1, 4, 1, 5, 9, 2, 6])
    tokens = np.repeat(np.arange(8), lengths).astype(np.uint16)
    text = Text(tokens, np.concatenate([[0], np.cumsum(lengths)[:-1]]))
    half = text.at_most(len(tokens) / 2)
    assert half.tokens.tolist() == np.repeat([1, 3, 5, 7], [1, 1, 9, 6]).tolist()
    assert half.starts.tolist() == [0, 1, 2, 11]
    assert text.at_most(1e9) is text
    assert len(text.at_most(1).starts) == 1
    assert text.at_most(1).tokens.tolist() == [0, 0, 0]


# --- baselines ------------------------------------------------------------------------------------------------------

NAMES = ["uniform", "unigram", "bigram", "trigram", "5-gram", "5-gram and cache", "xz -9e"]


def test_the_rows_of_a_real_text(pydoc_dir: Path) -> None:
    rows = baselines.baselines("pydoc", pydoc_dir)
    assert [row.name for row in rows] == NAMES
    nll = {row.name: row.value for row in rows}
    data = load("pydoc", pydoc_dir)
    assert nll["uniform"] == math.log(data.vocab_size)
    assert nll["uniform"] > nll["unigram"] > nll["bigram"] > nll["trigram"] > nll["5-gram"]
    assert 0.0 < nll["xz -9e"] < nll["bigram"]
    assert all(row.note for row in rows)
    assert measure("shared_moe", "pydoc", pydoc_dir) == rows


def test_a_config_scores_the_targets_that_its_models_are_evaluated_on(make_task: MakeTask, pydoc_dir: Path) -> None:
    task = make_task(context=32, eval_sequences=5)
    targets = task.sequences("test")[:, 1:].numpy()
    assert targets.shape == (5, 32)
    data = load("pydoc", pydoc_dir)
    below = np.concatenate([data.train.tokens, data.val.tokens])
    counts = np.bincount(below, minlength=data.vocab_size)
    taken = np.array([0.0, *discounts(counts)])[np.minimum(counts, 3)]
    unigram = (counts - taken + taken.sum() / data.vocab_size) / len(below)
    rows = {r.name: r for r in measure("shared_moe", "pydoc", pydoc_dir, task.config.model_dump())}
    assert rows["unigram"].value == pytest.approx(-np.log(unigram[targets]).mean(), rel=1e-12)
    assert "5 sequences of 32 tokens" in rows["unigram"].note
    assert "whole split" in rows["xz -9e"].note


class Letters:
    """A tokenizer whose tokens are letters."""

    def decode_batch(self, documents: list[list[int]], skip_special_tokens: bool) -> list[str]:
        assert not skip_special_tokens
        return ["".join(chr(97 + token) for token in document) for document in documents]


def written(train: np.ndarray, val: np.ndarray, test: np.ndarray, document: int = 25) -> TextData:
    """Splits of documents of ``document`` tokens."""

    def split(tokens: np.ndarray) -> TextSplit:
        mapped: Any = tokens.astype(np.uint16)
        return TextSplit(mapped, len(tokens) // document, len(tokens), np.arange(0, len(tokens), document))

    return TextData("letters", split(train), split(val), split(test), 8, "", "")


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> dict[str, TextData]:
    """What is loaded, to be set under "letters"."""
    there: dict[str, TextData] = {}
    monkeypatch.setattr(baselines, "load", lambda name, data_dir: there[name])
    monkeypatch.setattr(baselines, "tokenizer", lambda name, data_dir: Letters())
    return there


def chain(num: int, seed: int) -> np.ndarray:
    """Tokens of which each is its predecessor plus one with probability 0.7, else any of eight."""
    rng = np.random.default_rng(seed)
    jumps = rng.random(num) >= 0.7
    anywhere = rng.integers(0, 8, num)
    tokens = np.empty(num, dtype=np.int64)
    last = 0
    for place in range(num):
        last = int(anywhere[place]) if jumps[place] else (last + 1) % 8
        tokens[place] = last
    return tokens


def test_n_grams_reach_the_entropy_of_a_chain_and_unigrams_do_not(letters: dict[str, TextData]) -> None:
    letters["letters"] = written(chain(40_000, 0), chain(5_000, 1), chain(20_000, 2))
    nll = {row.name: row.value for row in baselines.baselines("letters", Path())}
    step, other = 0.7 + 0.3 / 8, 0.3 / 8
    entropy = -step * math.log(step) - 7 * other * math.log(other)
    assert nll["unigram"] == pytest.approx(math.log(8), abs=0.005)
    for name in ("bigram", "trigram"):
        assert nll[name] == pytest.approx(entropy, abs=0.03)
    assert nll["bigram"] < nll["5-gram"] < nll["bigram"] + 0.1
    assert entropy < nll["5-gram and cache"] < nll["5-gram"]  # a cache of such a chain is near the unigrams
    assert entropy < nll["xz -9e"] < math.log(8)


def test_a_split_is_scored_from_what_lies_before_it(letters: dict[str, TextData]) -> None:
    """Changing test does not change what val is told; changing val changes what test is told."""
    train, val, test = chain(2_000, 0), chain(500, 1), chain(500, 2)
    letters["letters"] = written(train, val, test)
    by_val, by_test = baselines.baselines("letters", Path(), split="val"), baselines.baselines("letters", Path())
    letters["letters"] = written(train, val, 7 - test)
    assert baselines.baselines("letters", Path(), split="val") == by_val
    letters["letters"] = written(train, 7 - val, test)
    changed = baselines.baselines("letters", Path())
    assert all(one.value != other.value for one, other in zip(changed[1:], by_test[1:], strict=True))


def test_large_sets_are_thinned_and_say_so(letters: dict[str, TextData], monkeypatch: pytest.MonkeyPatch) -> None:
    letters["letters"] = written(chain(2_000, 0), chain(500, 1), chain(1_000, 2))
    monkeypatch.setattr(baselines, "_MAX_TOKENS", 1_000)
    monkeypatch.setattr(baselines, "_MAX_TARGETS", 500)
    monkeypatch.setattr(baselines, "_MAX_XZ_BYTES", 1_250)
    notes = {row.name: row.note for row in baselines.baselines("letters", Path())}
    some = "of 2,500 tokens (whole documents, evenly spread) below"
    assert notes["bigram"].startswith(f"modified Kneser-Ney on 1,000 {some}; scored on 500 of 1,000 tokens")
    assert notes["xz -9e"].startswith(f"text after 1,250 {some}")


def test_few_documents_settle_the_cache_by_tokens(letters: dict[str, TextData]) -> None:
    letters["letters"] = written(chain(1_000, 0), chain(500, 1), chain(500, 2), document=500)
    assert [row.name for row in baselines.baselines("letters", Path())] == NAMES


def test_a_family_without_baselines_has_none() -> None:
    assert not FAMILY.baselines
    assert not measure("tests.worlds.family:FAMILY", "x", Path("data"))
