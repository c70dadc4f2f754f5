"""What `tune-rh submit` uploads and asks for, and what it makes of the answers; on a cluster: `tests/cluster`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w

from tests.worlds.plans import fields
from tests.worlds.records import SMALL, make
from tune_rh.cli.main import main
from tune_rh.errors import PlanError
from tune_rh.run.ray import jobs


class Client:
    """As `ray.job_submission.JobSubmissionClient`; notes what it is asked for and what is in the uploaded folder."""

    status, message = "SUCCEEDED", ""
    asked: dict[str, Any]
    uploaded: set[str]
    plan: str

    def __init__(self, address: str) -> None:
        self.address = address

    def submit_job(self, **asked: Any) -> str:
        folder = Path(asked["runtime_env"]["working_dir"])
        Client.asked = asked
        Client.uploaded = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        Client.plan = (folder / "plan.toml").read_text() if "plan.toml" in Client.uploaded else ""
        return str(asked["submission_id"])

    async def tail_job_logs(self, identity: str) -> Any:
        yield "step 10\n"

    def get_job_info(self, identity: str) -> SimpleNamespace:
        return SimpleNamespace(status=jobs.JobStatus(self.status), message=self.message)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    monkeypatch.setattr(jobs, "JobSubmissionClient", Client)
    monkeypatch.setattr(jobs, "maybe_enable_token_auth_if_token_available", lambda **_: False)
    monkeypatch.setattr(Client, "status", "SUCCEEDED")
    monkeypatch.setattr(Client, "message", "")
    return Client


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a family of the user's own: a package, a module that it imports, and one that nothing does."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("from dataclasses import replace\nimport beside\n")
    (tmp_path / "mine" / "models.py").write_text(
        "from mine import replace\nfrom tests.worlds.family import FAMILY as F\nFAMILY = replace(F, name='mine')\n"
    )
    (tmp_path / "mine" / "table.csv").write_text("1,2\n")
    (tmp_path / "mine" / "__pycache__").mkdir()
    (tmp_path / "mine" / "__pycache__" / "models.pyc").write_bytes(b"\0")
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "unused.py").write_text("")
    before = set(sys.modules)
    for name in before:  # beside `tests`, and loaded where other tests ran before: it would go along
        if name.partition(".")[0] == "benchmarks":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mine", "beside"):
            del sys.modules[name]


def submit(*words: str) -> int:
    return main(["submit", *words, "--address", "http://h0:8265"])


def test_a_plan_goes_with_the_users_own_modules(
    own: Path, client: type[Client], capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "plan.toml").write_text(tomli_w.dumps(fields(name="first", family="mine.models:FAMILY")))
    code = submit(str(own / "plan.toml"), "--runs-dir", "/shared/runs", "--set", "num_candidates=5", "--accept", "P20")
    assert code == 0
    mine = {"mine/__init__.py", "mine/models.py", "mine/table.csv", "beside.py"}
    assert {name for name in client.uploaded if not name.startswith("tests/")} == {"plan.toml", *mine}
    assert "num_candidates = 5" in client.plan
    asked = client.asked
    assert asked["entrypoint"] == (
        "python -m tune_rh search plan.toml --address auto --runs-dir /shared/runs --data-dir /shared/data --accept P20"
    )
    assert asked["metadata"] == {"job_name": "first", "runs_dir": "/shared/runs"}
    assert asked["runtime_env"]["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "120"}
    assert asked["submission_id"].startswith("first-")
    assert "step 10" in capsys.readouterr().out


def test_a_plan_of_ours_goes_alone(client: type[Client]) -> None:
    assert submit("quickstart", "--runs-dir", "/shared/runs", "--data-dir", "/elsewhere", "--name", "other") == 0
    assert client.uploaded == {"plan.toml"}
    assert "--data-dir /elsewhere" in client.asked["entrypoint"]
    assert client.asked["metadata"]["job_name"] == "other"


def test_a_run_that_lies_there_goes_on(tmp_path: Path, client: type[Client]) -> None:
    make(tmp_path / "runs" / "run", **SMALL)
    assert submit("run", "--runs-dir", str(tmp_path / "runs"), "--set", "num_candidates=9") == 0
    assert client.asked["entrypoint"] == (
        "python -m tune_rh resume run --set num_candidates=9 --trust tests.worlds.family --address auto "
        f"--runs-dir {tmp_path}/runs"
    )
    assert "plan.toml" not in client.uploaded
    assert "tests/worlds/family.py" in client.uploaded


def test_a_run_that_only_the_cluster_sees_goes_on_with_the_modules_that_are_named(
    own: Path, client: type[Client]
) -> None:
    assert submit("first", "--runs-dir", "/shared/runs", "--trust", "mine.models") == 0
    assert "resume first --trust mine.models --address auto" in client.asked["entrypoint"]
    assert "mine/models.py" in client.uploaded


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        ("FAILED", "Job entrypoint command failed with exit code 4, last available logs", 4),
        ("FAILED", "Job entrypoint command failed with exit code -9. No logs available.", 137),
        ("FAILED", "The actor died unexpectedly\nbefore the job began", 5),
        ("STOPPED", "", 130),
    ],
)
def test_the_exit_code_is_that_of_the_search(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, status: str, message: str, code: int
) -> None:
    monkeypatch.setattr(client, "status", status)
    monkeypatch.setattr(client, "message", message)
    assert submit("quickstart", "--runs-dir", "/shared/runs") == code


def test_ctrl_c_leaves_the_search_running(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "get_job_info", interrupt)
    assert submit("quickstart", "--runs-dir", "/shared/runs") == 130
    assert "The search goes on there; `ray job logs --follow quickstart-" in capsys.readouterr().out


def test_a_cluster_that_is_lost_sight_of_is_no_end_of_the_search(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(client, "get_job_info", fail)
    assert submit("quickstart", "--runs-dir", "/shared/runs") == 5
    assert "lost sight of job quickstart-" in capsys.readouterr().err


def test_no_cluster_there_is_refused_with_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "quickstart", "--runs-dir", "/shared/runs", "--address", "http://127.0.0.1:9"]) == 3
    said = capsys.readouterr().err
    assert "--address http://127.0.0.1:9: Failed to connect to Ray" in said
    assert "http://HOST:8265" in said


def test_too_much_is_refused_and_the_largest_file_named(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name, size in (("model.py", 1), ("weights.bin", 51 * 2**20)):
        with (tmp_path / "mine" / name).open("wb") as file:
            file.truncate(size)
    with pytest.raises(PlanError, match=r"are 51 MiB, where 50 MiB .* largest file is \S*/mine/weights.bin \(51 MiB\)"):
        jobs._pack(jobs.Job("run", [], modules=[tmp_path / "mine"]), tmp_path)


def test_an_address_without_its_protocol_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "quickstart", "--runs-dir", "/shared/runs", "--address", "h0:6379"]) == 2
    assert "--address h0:6379: is not that of a dashboard, such as http://HOST:8265" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quickstart", "--runs-dir", "runs"], "'runs': must be an absolute path"),
        (["quickstart"], "--runs-dir"),
    ],
)
def test_where_runs_lie_must_be_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        submit(*words)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--runs-dir", "--data-dir"])
def test_rays_copy_of_a_job_is_no_place_for_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    inside = tmp_path / "working_dir_files" / "_ray_pkg_0123456789abcdef" / "here"
    places = {"--runs-dir": tmp_path / "runs", "--data-dir": tmp_path / "data", option: inside}
    words = [word for name, folder in places.items() for word in (name, str(folder))]
    assert main(["search", "quickstart", "--runner", "local", *words]) == 2
    assert f"{option} {inside}: lies in Ray's copy of a job" in capsys.readouterr().err
    assert not inside.exists()
