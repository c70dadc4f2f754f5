"""Show the page of a run in a browser and keep it as the run is: on this machine, by an address with a token."""

from __future__ import annotations

import argparse
from contextlib import suppress

from tune_rh.cli import options
from tune_rh.errors import RunError
from tune_rh.run import runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name of a run, or its folder")
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="of 127.0.0.1; default: one that is free")
    options.add_places(parser)


def run(args: argparse.Namespace) -> int:
    from tune_rh.cli import terminal
    from tune_rh.results.reading import read
    from tune_rh.results.serving import LivePage, Server

    paths = runs.find(args.run, args.runs_dir.absolute())
    read(paths)  # what cannot be read is said here
    try:
        server = Server(LivePage(paths, options.data_dir(args, paths)), args.port)
    except OSError as error:
        raise RunError(
            f"port {args.port} of 127.0.0.1: {error.strerror}; without --port a free one is taken"
        ) from error
    with server, suppress(KeyboardInterrupt):
        terminal.console().print(f"{paths.root.name}: {server.address}\nCtrl-C ends it.", soft_wrap=True)
        server.serve_forever()
    return 0


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 (one that is free) to 65535")
    return int(text)
