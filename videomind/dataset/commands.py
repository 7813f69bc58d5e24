"""`videomind data`: what data sets hold, without training on them."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields

from videomind.dataset.base import source_names
from videomind.dataset.parts import Filters, load_part, parse_entries
from videomind.dataset.statistics import statistics
from videomind.logger import run_reporting, setup_logging

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="videomind data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the names of all data sets")
    stats = commands.add_parser("stats", help="counts, what is dropped and why, lengths and words")
    stats.add_argument("names", nargs="+", metavar="NAME[@SPLIT][:WEIGHT]", help="or .jsonl files")
    stats.add_argument("--data_root", default="data", help="folder of all data sets")
    for f in fields(Filters):
        stats.add_argument(f"--{f.name}", type=type(f.default), default=f.default, help="-1 is off")
    return parser


def run(args: argparse.Namespace) -> None:
    """Run a parsed command."""
    if args.command == "list":
        sys.stdout.write("".join(f"{name}\n" for name in source_names()))
        return
    filters = Filters(**{f.name: getattr(args, f.name) for f in fields(Filters)})
    entries = parse_entries(",".join(args.names))
    parts = [load_part(entry, data_root=args.data_root, filters=filters) for entry in entries]
    sys.stdout.write(statistics(parts) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Command-line entry. Returns the exit code: 2 for data that cannot be used."""
    setup_logging()
    args = build_parser().parse_args(argv)
    return run_reporting(log, lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
