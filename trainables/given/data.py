"""The data of a family that was made from Python objects: a file, a folder, what a function makes, or none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.api import Progress
from trainables.errors import DataCorrupt, DataError, DataMissing
from trainables.files import make_folder, sha256, write_atomic


@dataclass(frozen=True)
class GivenData:
    """A `trainables.api.DataSource` of one data set.

    Attributes:
        name: of the data set.
        place: a file or a folder, with its whole path; None: ``make`` says where, or there is no data.
        make: makes the data below a folder; returns where.
        key: what ``make`` has made is looked for under.
    """

    name: str
    place: Path | None = None
    make: Callable[[Path], Any] | None = None
    key: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The one data set."""
        return (self.name,)

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        """Make the data if it is not there."""
        if self.make is not None and not self._note(data_dir).is_file():
            make_folder(data_dir)
            made = self.make(data_dir)
            if not isinstance(made, str | Path) or not Path(made).exists():
                raise DataError(f"data = {self.name}(): returns {made!r}: allowed is the path of what it has made")
            make_folder(self._note(data_dir).parent)
            write_atomic(self._note(data_dir), json.dumps({"path": str(Path(made).absolute())}))
        return self.found(data_dir)

    def digest(self, name: str, data_dir: Path) -> str:
        """SHA-256 of the content; files that have neither grown nor been touched are not read again."""
        if self.place is None and self.make is None:
            return hashlib.sha256(b"").hexdigest()
        return content_digest(self.found(data_dir), data_dir / "given")

    def found(self, data_dir: Path) -> Path:
        """Where the data lies: what a task gets as its ``data_dir``; raises `DataMissing`."""
        place = self.place
        if self.make is not None:
            try:
                place = Path(json.loads(self._note(data_dir).read_text(encoding="utf-8"))["path"])
            except FileNotFoundError:
                raise DataMissing(f"data = {self.name}(): has not been called for {data_dir}") from None
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataCorrupt(f"{self._note(data_dir)}: cannot be read ({error}); remove it") from error
        if place is not None and not place.exists():
            if self.make is not None:
                raise DataCorrupt(f"{place}: was made by {self.name}(), and is gone; remove {self._note(data_dir)}")
            raise DataError(f"data = {str(place)!r}: no such file or folder")
        return data_dir if place is None else place

    def _note(self, data_dir: Path) -> Path:
        return data_dir / "given" / f"{self.key}.json"


def content_digest(path: Path, notes: Path) -> str:
    """SHA-256 of a file, or of the names and contents in a folder.

    Args:
        path: it.
        notes: a folder for what is known of files by their size and time, so that large ones are read once.
    """
    note = notes / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.digests.json"
    known = _known(note)
    now: dict[str, list[Any]] = {}
    try:
        for file in _files(path):
            name, stat = str(file.relative_to(path)), file.stat()
            seen = [stat.st_size, stat.st_mtime_ns]
            before = known.get(name)
            now[name] = before if before and before[:2] == seen else [*seen, sha256(file)]
        if now != known:
            make_folder(notes)
            write_atomic(note, json.dumps(now), durable=False)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from error
    if path.is_file():
        return str(now["."][2])
    return hashlib.sha256(json.dumps([[name, facts[2]] for name, facts in sorted(now.items())]).encode()).hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (file for file in sorted(path.rglob("*")) if file.is_file())


def _known(note: Path) -> dict[str, list[Any]]:
    try:
        found: dict[str, list[Any]] = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
