"""Own random streams: apart from one another, from everybody else's, and restored exactly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from trainables.training.seeding import RngStream, derive_seed, make_generator

CPU = torch.device("cpu")


def test_purposes_and_seeds_have_their_own_draws() -> None:
    seeds = {derive_seed(seed, purpose) for seed in range(50) for purpose in ("data", "dropout")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    first, again = (torch.rand(3, generator=make_generator(1, "data")) for _ in range(2))
    assert torch.equal(first, again)


def test_the_caller_never_notices_a_stream() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = torch.rand(4)
        torch.manual_seed(5)
        with RngStream(0, "noise", CPU):
            torch.rand(1000)
        assert torch.equal(torch.rand(4), expected)


def test_the_stream_never_notices_the_caller() -> None:
    draws = []
    for disturbance in (0, 17):
        stream = RngStream(0, "noise", CPU)
        with stream:
            first = F.dropout(torch.ones(64))
        torch.rand(disturbance)
        with stream:
            draws.append((first, F.dropout(torch.ones(64))))
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[0][1])


def test_a_saved_stream_goes_on_in_one_of_another_seed() -> None:
    stream, other = RngStream(0, "noise", CPU), RngStream(1, "noise", CPU)
    with stream:
        torch.rand(3)
    other.load_state_dict(stream.state_dict())
    with stream:
        expected = torch.rand(5)
    with other:
        assert torch.equal(torch.rand(5), expected)


def test_an_error_inside_still_gives_the_caller_back_its_state() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), RngStream(0, "noise", CPU):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
