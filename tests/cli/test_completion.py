"""The completion script, as bash runs it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from trainables.registry import FAMILIES
from tune_rh.cli.main import COMMANDS, main


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["fam"], {"families"}),
        ([""], set(COMMANDS)),
        (["families", ""], set(FAMILIES)),
        (["resume", ""], {"first", "second"}),
        (["status", "fi"], {"first"}),
        (["search", "qui"], {"quickstart"}),
        (["search", "my-"], {"my-plan.toml"}),
        (["search", "--dry"], {"--dry-run"}),
        (["search", "--runner", "l"], {"local"}),
    ],
)
def test_bash_completes(
    tmp_path: Path, words: list[str], offered: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "my-plan.toml").touch()
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    ask = (
        f"source ./script; COMP_WORDS=(tune-rh {shlex.join(words)}); COMP_CWORD={len(words)}; "
        'eval "$(complete -p tune-rh | sed "s/.*-F //; s/ .*//")"; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {word.strip() for word in done.stdout.splitlines()}
    assert offered <= found if words == [""] else offered == found


def test_zsh_has_a_script_of_its_own() -> None:
    command = [sys.executable, "-m", "tune_rh", "completion", "zsh"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("#compdef tune-rh\n")
