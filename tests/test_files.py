"""Files and folders appear whole or not at all, whatever stops the one who writes them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trainables.errors import CheckpointError
from trainables.files import new_folder, replacing, write_atomic
from tune_rh.errors import StorageError, storage, storage_problem


def full(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.json"
    write_atomic(path, "old")
    write_atomic(path, b"older")
    assert path.read_text() == "older"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, "new")
        assert path.read_text() == "older"
        assert list(tmp_path.iterdir()) == [path]
        write_atomic(path, "made again", durable=False)
    assert path.read_text() == "made again"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_and_its_name_are_on_the_disk_in_that_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, bool]] = []
    path, fsync, replace = tmp_path / "facts.json", os.fsync, os.replace

    def watched(descriptor: int) -> None:
        done.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(os, "replace", lambda one, two: (done.append(("rename", path.exists())), replace(one, two)))
    write_atomic(path, "new")
    (written, _), *rest = done
    assert written.startswith(".facts.json.")
    assert rest == [("rename", False), (tmp_path.name, True)]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_atomic(path, "old")

    def write() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    gate = threading.Barrier(4)
    contents = [str(number) * 10_000 for number in range(4)]

    def write(content: str) -> None:
        with replacing(path, durable=False) as file:
            gate.wait()
            file.write(content.encode())

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_limit_of_the_kernel_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_atomic(path, "old")
    code = (
        "import resource, sys; from pathlib import Path; from trainables.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: write_atomic(Path(sys.argv[1]), 'x' * 100)\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "OSError\n"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "best"
    with new_folder(path) as folder:
        (folder / "weights").write_text("1")
        assert not path.exists()
    assert [file.read_text() for file in path.iterdir()] == ["1"]
    other = tmp_path / "deep" / "other"
    other.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"), new_folder(other) as folder:
            (folder / "weights").write_text("2")
    assert list(other.iterdir()) == []
    with new_folder(other) as folder:
        (folder / "weights").write_text("2")
    assert [file.read_text() for file in other.iterdir()] == ["2"]
    with pytest.raises(OSError, match="not empty"), new_folder(path) as folder:
        (folder / "weights").write_text("3")
    assert [file.read_text() for file in path.iterdir()] == ["1"]
    assert sorted(path.parent.iterdir()) == [path, other]


PROBLEMS = {
    errno.ENOSPC: "the disk is full; nothing that was written before is lost. Free some space",
    errno.EDQUOT: "the disk quota is used up; nothing that was written before is lost. Free some space",
    errno.EIO: "input/output error; nothing that was written before is lost. Mend the file system",
    errno.EROFS: "read-only file system; nothing that was written before is lost. Mend the file system",
    errno.ESTALE: "stale file handle; nothing that was written before is lost. Mend the file system",
}


@pytest.mark.parametrize("number", PROBLEMS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_error_of_the_storage_is_said_with_what_to_do(number: int, wrapped: bool) -> None:
    error: Exception = OSError(number, os.strerror(number), "some/file")
    if wrapped:
        error, error.__cause__ = CheckpointError("some/file: cannot be written"), error
    with pytest.raises(StorageError) as caught, storage(Path("runs/one"), "resume it"):
        raise error
    assert str(caught.value) == f"runs/one: {PROBLEMS[number]}, then resume it"
    assert caught.value.exit_code == 5


def test_the_text_of_a_library_keeps_the_number() -> None:
    told = "safetensors.SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)"
    assert storage_problem(told) == "the disk is full"
    assert storage_problem("FileNotFoundError: [Errno 2] No such file or directory: 'x'") is None
    assert storage_problem("RuntimeError: 28 steps, error (5)") is None


def test_another_error_of_a_file_is_its_own() -> None:
    with pytest.raises(PermissionError), storage(Path("runs/one"), "resume it"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
