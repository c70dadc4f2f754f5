"""Diagnosis inside a search: what a worker does with the best checkpoint of a member that reached the last stage.

The findings go to ``members/<id>/findings.json``, the verdicts to the journal. Not here: the diagnostics themselves
(``analysis/<family>/``), nor when a member is diagnosed (`tune_rh.policy`).
"""

from __future__ import annotations

import json
from pathlib import Path

from analysis.findings import to_json
from analysis.registry import GOLDEN
from analysis.registry import diagnose as ask
from analysis.subject import Subject
from trainables.api import TrainTask
from trainables.files import write_atomic
from trainables.member_job import MemberJob
from trainables.registry import build_config, get_family, resolve

FINDINGS, GOLDEN_WINDOWS = "findings.json", "golden.json"


def diagnose(job: MemberJob, task: TrainTask) -> dict[str, str]:
    """Put ``task``, which holds the member's best checkpoint, before the job's diagnostics; returns their verdicts."""
    config = build_config(get_family(job.family), job.config)
    golden = resolve(GOLDEN[job.family])(task) if job.family in GOLDEN else None
    subject = Subject(job.member, job.family, config, job.seed, task, golden, Path(job.data_dir))
    took: dict[str, float] = {}
    findings = ask(subject, job.diagnostics, lambda finding, seconds: took.update({finding.name: seconds}))
    keep(Path(job.folder), subject, to_json(findings, took))
    return {finding.name: finding.verdict for finding in findings}


def keep(folder: Path, subject: Subject, findings: str) -> None:
    """Write the findings to the member's folder, with the golden windows that they rest on."""
    if subject.golden is not None:
        write_atomic(folder / GOLDEN_WINDOWS, json.dumps(subject.golden.record()))
    write_atomic(folder / FINDINGS, findings)
