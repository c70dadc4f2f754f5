"""Formulas of what a winner has learnt, extracted from a run on disk or from an exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.extraction import Extracted, Extractor, NoExtractor, NoFormula, extractor_of
from trainables.files import read_fields, sha256
from trainables.registry import dataset_of, get_family
from trainables.worker import checkpoint, exported
from tune_rh.errors import PlanError, RunMismatch, TuneError
from tune_rh.record.ranking import best_member
from tune_rh.results.export import choose
from tune_rh.results.reading import Reading
from tune_rh.run import runs

if TYPE_CHECKING:
    from analysis.diagnose.subject import Subject

_LIBRARIES = ("tune-rh", "torch", "numpy", "scipy")


def of_run(reading: Reading, data_dir: Path, candidate: str | None = None, device: str = "cpu") -> Extracted:
    """Extract from the best member of a run's best candidate, or of ``candidate``, whatever the plan requires of it.

    Raises:
        ExportError: no candidate has finished, or not this one.
        PlanError: its family offers no extraction.
        RunMismatch: the data set in ``data_dir`` is not the one that the run was made with.
        TuneError: the model gives nothing to fit.
        trainables.errors.TrainableError: its checkpoint or the data set is missing or corrupt.
    """
    from analysis.diagnose.subject import open_member

    extractor = _extractor(reading.history.plan.family)
    chosen = choose(reading.history, candidate, despite=True)
    member = str(best_member(reading.history, chosen.candidate))
    subject = open_member(reading.run, member, data_dir, device)
    best = checkpoint.linked(reading.paths.member(member) / "checkpoints", "best")
    assert best is not None  # it has just been opened
    return _extracted(extractor, subject, best / checkpoint.WEIGHTS, reading.provenance.get("data") or {})


def of_export(folder: Path, data_dir: Path, device: str = "cpu") -> Extracted:
    """Extract from what ``tune-rh export`` wrote; raises as `of_run`."""
    import json

    from analysis.diagnose.subject import open_export

    extractor = _extractor(str(exported.read(folder).index["family"]))
    try:
        recorded = read_fields(folder / "provenance.json", json.loads).get("data") or {}
    except ValueError:
        recorded = {}  # only a reader's facts: the weights have digests of their own
    return _extracted(extractor, open_export(folder, data_dir, device), folder / exported.WEIGHTS, recorded)


def _extractor(family: str) -> Extractor:
    try:
        return extractor_of(family)
    except NoExtractor as error:
        raise PlanError(str(error)) from error


def _extracted(extractor: Extractor, subject: Subject, weights: Path, recorded: Mapping[str, Any]) -> Extracted:
    family = get_family(subject.family)
    name = dataset_of(family, subject.config)
    digest = runs.data_source(family).digest(name, subject.data_dir)
    if recorded.get("sha256") not in (None, digest):
        raise RunMismatch(f"{subject.data_dir}: {name} there is another version than {subject.member} was trained on")
    try:
        extraction = extractor(subject)
    except NoFormula as nothing:
        raise TuneError(f"{subject.member}: nothing to extract: {nothing}") from nothing
    versions = {library: version(library) for library in _LIBRARIES}
    return Extracted(
        subject.family, subject.member, subject.config.digest(), sha256(weights), name, digest, versions, extraction
    )
