"""Write prometheus.yml and a Grafana dashboard that show what searches on Ray do."""

from __future__ import annotations

import argparse
from pathlib import Path

from tune_rh.cli import options, terminal
from tune_rh.watch.metrics import write_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the module."""
    parser.add_argument("folder", type=options.path, metavar="DIR", help="where to write them")
    parser.add_argument(
        "--ray-dir",
        type=options.path,
        default=Path("/tmp/ray"),
        metavar="DIR",
        help="temporary folder of a cluster that was started with `ray start` on this host (/tmp/ray)",
    )


def run(args: argparse.Namespace) -> int:
    """See the module."""
    options.check_writable(args.folder, "DIR")
    console = terminal.console()
    config, dashboard = write_config(args.folder, args.ray_dir.absolute())
    console.print(f"{config}: `prometheus --config.file={config}`, on the host of the cluster's head", soft_wrap=True)
    console.print(f"{dashboard}: Grafana, Dashboards, Import", soft_wrap=True)
    return 0
