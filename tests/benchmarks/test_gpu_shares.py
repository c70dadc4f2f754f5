"""The benchmark of shares of a GPU runs on a CPU as well, with toys, and says the same things."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_shares
from benchmarks.gpu_shares import Speed, row, shared


def test_members_at_a_time_are_compared_with_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    by_number = {1: [Speed(2000.0, 1024.0, 2048.0)], 4: [Speed(750.0, 512.0, 4096.0)] * 3 + [Speed(750.0, 768.0, 0.0)]}
    monkeypatch.setattr(gpu_shares, "together", lambda load, device, num, seconds: by_number[num])
    assert list(shared("cpu", 4, 1.0)) == [
        ("tiny, one after another", "2.0", "1.00", "1,024 MiB (1.00 GiB)", "2,048 MiB (2.00 GiB)"),
        ("tiny, 4 at a time", "3.0", "1.50", "768 MiB (0.75 GiB)", "4,096 MiB (4.00 GiB)"),
    ]
    assert row("a", 1500.0, 0.8) == ("a", "1.5", "0.80", "", "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu_shares.main([])
    assert "torch sees no GPU here; allowed is cpu" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)  # three processes load torch
def test_the_whole_of_it_runs_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_shares.main(["--device", "cpu", "--members", "2", "--seconds", "0.2", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == [
        "tiny, one after another",
        "tiny, 2 at a time",
        "tiny, dense layer of the same active width",
        "tiny, sorted dispatch (goal 0.8)",
    ]
