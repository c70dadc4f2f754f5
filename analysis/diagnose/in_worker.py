"""Diagnosis inside a search: what a worker does with the best checkpoint of a member that reached the last stage.

The findings go to ``members/<id>/findings.json``, the verdicts to the journal.
"""

from __future__ import annotations

from pathlib import Path

from analysis.diagnose.findings import to_json
from analysis.diagnose.registry import diagnose as ask
from analysis.diagnose.subject import subject_of
from trainables.api import TrainTask
from trainables.files import write_atomic
from trainables.registry import build_config, get_family
from trainables.worker.job import MemberJob

FINDINGS = "findings.json"


def diagnose(job: MemberJob, task: TrainTask) -> dict[str, str]:
    """Put ``task``, which holds the member's best checkpoint, before the job's diagnostics; returns their verdicts."""
    config = build_config(get_family(job.family), written=[job.config])
    subject = subject_of(str(job.member), job.family, config, job.member.seed, task, Path(job.data_dir))
    took: dict[str, float] = {}
    findings = ask(subject, job.diagnostics, lambda finding, seconds: took.update({finding.name: seconds}))
    write_atomic(Path(job.folder) / FINDINGS, to_json(findings, took))
    return {finding.name: finding.verdict for finding in findings}
