"""Go on with a text by a language model that `tune-rh export` wrote."""

from __future__ import annotations

import argparse

from tune_rh.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the module."""
    parser.add_argument("folder", type=options.path, metavar="DIR", help="what `tune-rh export` wrote")
    parser.add_argument("--prompt", required=True, help="the text to go on with")
    parser.add_argument("--tokens", type=int, default=100, metavar="N", help="how many at most (100)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="above 0; lower is likelier (1)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw from the likeliest P of tokens (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")


def run(args: argparse.Namespace) -> int:
    """See the module."""
    from trainables.language.generation import Sampling, continue_text

    sampling = Sampling(args.temperature, args.top_p, args.seed)
    print(continue_text(args.folder, args.prompt, args.tokens, sampling))
    return 0
