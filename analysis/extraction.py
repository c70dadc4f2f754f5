"""What a winner has learnt, as a formula a person can read: what a family extracts from a trained model, and the file.

A family that can do it names an `Extractor` (`trainables.api.Family.extraction`). ``extract.json`` holds what it found
beside what it was found in: in the ``report/`` of a run, or in an exported folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter

from analysis.diagnose.api import Plot, Value
from analysis.diagnose.findings import read_json, spelt
from trainables.registry import FAMILIES, get_family, get_part

EXTRACT = "extract.json"
_SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is called, then what was measured; NaN where there is nothing to show."""

    words: tuple[str, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Listing:
    """A table as data: a sentence above it, the names of its columns with units, its rows."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Extraction:
    """What was extracted from one trained model. Intervals are at 95%.

    Attributes:
        says: what it means, a sentence each, for a reader who knows the model's task.
        formula: the closed form, on one line.
        fitted_on, scored_on: which data, and how much of it.
        values: what was measured, by name, with all digits.
    """

    says: tuple[str, ...]
    formula: str
    fitted_on: str
    scored_on: str
    tables: tuple[Listing, ...] = ()
    plots: tuple[Plot, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)


class Extractor(Protocol):
    """``Family.extraction``: fits formulas to what a trained model says."""

    def __call__(self, subject: Any) -> Extraction:
        """Extract from an `analysis.diagnose.subject.Subject`; raises `NoFormula` where there is nothing to fit."""
        ...


class NoExtractor(ValueError):
    """The family offers no extraction; the text names those that do."""


class NoFormula(ValueError):
    """This model gives nothing to fit: its predictions are not finite, or too few."""


@dataclass(frozen=True)
class Extracted:
    """An extraction, and what it was made of and with.

    Attributes:
        member: ``c0007-s42``.
        config_digest, weights_sha256: of the model.
        data, data_sha256: the data set by name, and the digest of its file.
        versions: of what computed it, by package.
    """

    family: str
    member: str
    config_digest: str
    weights_sha256: str
    data: str
    data_sha256: str
    versions: Mapping[str, str]
    extraction: Extraction

    @property
    def candidate(self) -> str:
        """``c0007``."""
        return self.member.partition("-")[0]


_EXTRACTED = TypeAdapter(Extracted)


def extractor_of(family: str) -> Extractor:
    """The extractor that a family names.

    Raises:
        NoExtractor: it names none.
        UnknownFamily: there is no such family, or what it names cannot be imported.
    """
    extractor: Extractor | None = get_part(family, "extraction")
    if extractor is None:
        offering = ", ".join(name for name in sorted(FAMILIES) if get_family(name).extraction)
        raise NoExtractor(f"family {family!r} offers no extraction; those that do: {offering}")
    return extractor


def to_json(extracted: Extracted) -> str:
    """The content of ``extract.json``: strict JSON with all digits."""
    content = {"schema": _SCHEMA, **asdict(extracted)}
    return json.dumps(spelt(content), indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Extracted:
    """The inverse of `to_json`; raises ValueError on what this version does not write."""
    try:
        content = json.loads(text)
        if content.pop("schema") != _SCHEMA:
            raise ValueError(f"another schema than {_SCHEMA}")
        return _EXTRACTED.validate_python(read_json(content))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an extraction of this version ({type(error).__name__}: {error})") from error


def kept(folder: Path) -> Extracted | None:
    """What lies in ``folder``; None if nothing does, ValueError if it cannot be read."""
    try:
        text = (folder / EXTRACT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{error.strerror}") from error
    return from_json(text)
