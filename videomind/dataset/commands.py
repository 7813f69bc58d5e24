"""`videomind data`: what data sets hold, without training on them."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from tabulate import tabulate

from videomind.dataset.base import get_source, source_names
from videomind.dataset.filters import Filters
from videomind.dataset.parts import load_parts, parse_entries
from videomind.dataset.statistics import statistics
from videomind.logger import run_reporting, setup_logging

MANY = 4  # from this many files on, only the first is named
log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="videomind data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    names = commands.add_parser("list", help="all data sets: splits, files, and what is there")
    names.add_argument("--data_root", default="data", help="folder of all data sets")
    stats = commands.add_parser("stats", help="counts, what is dropped and why, lengths and words")
    stats.add_argument("names", nargs="+", metavar="NAME[@SPLIT][:WEIGHT]", help="or .jsonl files")
    stats.add_argument("--data_root", default="data", help="folder of all data sets")
    for f in fields(Filters):
        stats.add_argument(f"--{f.name}", type=type(f.default), default=f.default, help="-1 is off")
    return parser


def overview(data_root: str) -> str:
    """A table of all data sets with their annotation files and video folders, missing ones marked."""
    rows = []
    for source in (get_source(name, data_root) for name in source_names()):
        videos = _paths(source.video_folders(), data_root)
        for split in source.splits:
            files = _paths(source.annotation_files(split), data_root)
            rows.append([source.name, source.view.role, split, files, videos])
    return tabulate(rows, headers=["data set", "role", "split", f"in {data_root}/ (- is missing)", "videos"])


def _paths(paths: Sequence[Path], data_root: str) -> str:
    names = [f"{'' if path.exists() else '- '}{path.relative_to(data_root)}" for path in paths]
    return "\n".join(names if len(names) < MANY else [names[0], f"... {len(names)} files"])


def run(args: argparse.Namespace) -> None:
    """Run a parsed command."""
    if args.command == "list":
        sys.stdout.write(overview(args.data_root) + "\n")
        return
    filters = Filters(**{f.name: getattr(args, f.name) for f in fields(Filters)})
    entries = parse_entries(",".join(args.names))
    parts = load_parts(entries, data_root=args.data_root, filters=filters)
    sys.stdout.write(statistics(parts) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Command-line entry. Returns the exit code: 2 for data that cannot be used."""
    setup_logging()
    args = build_parser().parse_args(argv)
    return run_reporting(log, lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
