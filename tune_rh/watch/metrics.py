"""What a search shows on Ray's metrics endpoint, by name; and how Prometheus and Grafana are told of it.

Gauges alone, with the journal's own figures: a counter of a driver that died is exported for as long as the node lives.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from trainables.files import write_atomic

OF_RUN: dict[str, str] = {
    "steps": "Optimiser steps that all members have taken",
    "slots": "Jobs that can run at a time",
    "running": "Members that are in training, being tested or diagnosed",
    "waiting": "Members that may start and have no slot",
    "promoted": "Candidates that have passed the gate of the stage",
    "parked": "Members that stand at a gate",
    "retries": "Tries of jobs that were lost and begun again",
    "lost_nodes": "Times that a node of the cluster was lost",
}
OF_MEMBER: dict[str, str] = {
    "member_step": "Optimiser steps that the member has taken",
    "member_stage": "The stage that the member is in, from 1",
    "member_objective": "The objective at the member's last report",
    "member_steps_per_s": "Optimiser steps a second between its last two reports; 0 while it does not run",
    "member_gpu_mib": "Memory that torch holds on the GPU for it, MiB",
}
TAGS = ("run", "session", "family")
EXTRA_TAGS = {"promoted": (*TAGS, "stage"), **dict.fromkeys(OF_MEMBER, (*TAGS, "member"))}
"""Tags of the gauges that have more of them than `TAGS`."""
OWN_CLUSTERS = Path(f"/tmp/tune-rh-{os.getuid()}")
"""The folder of clusters that runs start for themselves: Ray's files of each, and a link to its list of endpoints."""
_DISCOVERY = "prom_metrics_service_discovery.json"


def exported(name: str) -> str:
    """What Ray calls a gauge on its endpoint."""
    return f"ray_tune_rh_{name}"


def discovery(temporary: Path) -> Path:
    """Where the head of a cluster, whose temporary folder this is, lists the endpoints of its nodes for Prometheus."""
    return temporary / _DISCOVERY


def write_config(folder: Path, joined: Path) -> list[Path]:
    """Write ``prometheus.yml`` and a Grafana dashboard into ``folder``, which is made; the files.

    Beside clusters of runs' own the one whose temporary folder is ``joined`` is watched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {"prometheus.yml": _prometheus(joined), "tune-rh-dashboard.json": json.dumps(_dashboard(), indent=1)}
    for name, content in files.items():
        write_atomic(folder / name, content + "\n")
    return [folder / name for name in files]


def _prometheus(joined: Path) -> str:
    return f"""\
# The head of each cluster lists its nodes in a file; Prometheus reads them again as nodes come and go.
global:
  scrape_interval: 5s
scrape_configs:
  - job_name: tune-rh
    file_sd_configs:
      - files:
          - {json.dumps(str(OWN_CLUSTERS / "*.json"))}
          - {json.dumps(str(discovery(joined)))}
        refresh_interval: 5s"""


def _dashboard() -> dict[str, Any]:
    """A dashboard in Grafana's JSON model: what is chosen is a run; a panel a gauge."""
    panels = []
    for number, (name, title) in enumerate({**OF_RUN, **OF_MEMBER}.items()):
        legend = "{{member}}" if name in OF_MEMBER else "stage {{stage}}" if name == "promoted" else name
        panels.append(
            {
                "id": number + 1,
                "type": "timeseries",
                "title": title,
                "datasource": {"type": "prometheus", "uid": "${source}"},
                "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
                "targets": [{"refId": "A", "expr": f'{exported(name)}{{run=~"$run"}}', "legendFormat": legend}],
            }
        )
    choices = [
        {"name": "source", "type": "datasource", "query": "prometheus"},
        {
            "name": "run",
            "type": "query",
            "datasource": {"type": "prometheus", "uid": "${source}"},
            "query": f"label_values({exported('steps')}, run)",
            "refresh": 2,
            "includeAll": True,
        },
    ]
    return {
        "uid": "tune-rh",
        "title": "tune-rh",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": choices},
        "panels": panels,
    }
