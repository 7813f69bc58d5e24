"""`videomind data`: what data sets hold, and training data for the verifier and the planner."""

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from videomind.dataset.base import get_source, source_names
from videomind.dataset.filters import Filters
from videomind.dataset.making import planning_row, rephrase_prompt, verifying_rows
from videomind.dataset.parts import Entry, Part, load_benchmark, load_parts, open_source, parse_entries
from videomind.dataset.readers import read_rows
from videomind.dataset.schema import Route
from videomind.dataset.statistics import statistics
from videomind.files import found_from, json_text, read_json_lines, write_json_lines, write_text, written_from
from videomind.logger import run_command
from videomind.prediction import read_predictions
from videomind.runs.endpoint import Endpoint

MANY = 4  # from this many files on, only the first is named
log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = argparse.ArgumentParser(prog="videomind data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    names = commands.add_parser("list", help="all data sets: splits, files, and what is there")
    names.add_argument("--data_root", default="data", help="folder of all data sets")
    stats = commands.add_parser("stats", help="counts, what is dropped and why, lengths and words")
    stats.add_argument("names", nargs="+", metavar="NAME[@SPLIT][:WEIGHT]", help="or .jsonl files")
    stats.add_argument("--data_root", default="data", help="folder of all data sets")
    for f in fields(Filters):
        stats.add_argument(f"--{f.name}", type=type(f.default), default=f.default, help="-1 is off")
    judged = commands.add_parser("make-verifying", help="a verifying file from a grounder's predictions")
    judged.add_argument("predictions", help="output.jsonl of videomind infer on a training split")
    judged.add_argument("out", help=".json file to write")
    plans = commands.add_parser("make-planning", help="a planning file from QA and grounding data sets")
    plans.add_argument("names", nargs="+", metavar="NAME[@SPLIT][:WEIGHT]", help="or .jsonl files")
    plans.add_argument("--out", required=True, help=".jsonl file to write; a rerun continues it")
    plans.add_argument("--data_root", default="data", help="folder of all data sets")
    plans.add_argument("--seed", type=int, default=42, help="of the choice where a weight takes a part")
    plans.add_argument("--endpoint", help="OpenAI-compatible URL (with /v1) that rephrases questions")
    plans.add_argument("--endpoint_model", help="its model's name")
    return parser


def make_verifying(args: argparse.Namespace) -> None:
    """Write a verifying file.

    Raises:
        ValueError: No prediction can be used.
    """
    numbered = enumerate(read_rows(args.predictions), 1)
    records = read_predictions((f"{args.predictions}, record {number}", row) for number, row in numbered)
    from_there, to_there = Path(args.predictions).parent, Path(args.out).parent
    rows = [_placed(row, from_there, to_there) for row in verifying_rows(records)]
    if not rows:
        raise ValueError(f"{args.predictions} holds no record with 'pred' and 'span'")
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(args.out, f"[{text}]\n")
    log.info(
        "Wrote %s: %d rows, %d records without moment or prediction",
        args.out,
        len(rows),
        len(records) - len(rows),
    )


def make_planning(args: argparse.Namespace) -> None:
    """Write a planning file line by line; lines that are there already are kept."""
    if bool(args.endpoint) != bool(args.endpoint_model):
        raise ValueError("--endpoint and --endpoint_model belong together")
    endpoint = Endpoint(args.endpoint, args.endpoint_model) if args.endpoint else None
    rephrase = None if endpoint is None else (lambda question: endpoint.ask(rephrase_prompt(question)))
    made = [row for _, row in read_json_lines(args.out, skip_cut=True)] if Path(args.out).is_file() else []
    folder = Path(args.out).parent
    done = {_key(row, folder) for row in made}
    parts = load_parts(parse_entries(",".join(args.names)), data_root=args.data_root, seed=args.seed)
    routes: Counter[int] = Counter()
    write_json_lines(args.out, made)  # without a line that a kill cut short
    with open(args.out, "a", encoding="utf-8") as file:
        chosen = [anno for part in parts for anno in part.chosen(args.seed)]
        for anno in tqdm(chosen, desc=args.out, unit=" rows", delay=2):
            if (_real(anno.video_path), anno.question or anno.query) in done:
                continue
            if row := planning_row(anno, rephrase):
                file.write(json_text(_placed(row, Path(), folder)) + "\n")
                file.flush()
                routes[row["route"]] += 1
    log.info("Wrote %s: %s", args.out, ", ".join(f"route {r}: {n}" for r, n in sorted(routes.items())))


def _key(row: dict, folder: Path) -> tuple:
    asked = row["question"] if row["route"] != Route.MOMENT else row["query"]
    return _real(found_from(folder, row["video_path"])), asked


def _placed(row: dict[str, Any], folder: Path, out: Path) -> dict[str, Any]:
    """Write a row's video, which is named from one folder, so that it is found from another one."""
    return {**row, "video_path": written_from(out, found_from(folder, row["video_path"]))}


def _real(path: str | list[str]) -> str:
    """Name a file, or the first of several, in the one way that it has."""
    return os.path.realpath(path if isinstance(path, str) else path[0])


def overview(data_root: str) -> str:
    """Make a table of all data sets with their annotation files and video folders, missing ones marked."""
    rows = []
    for source in (get_source(name, data_root) for name in source_names()):
        videos = _paths(source.video_folders(), data_root)
        for split in source.splits:
            files = _paths(source.annotation_files(split), data_root)
            rows.append([source.name, source.view.role, split, files, videos])
    return tabulate(rows, headers=["data set", "role", "split", f"in {data_root}/ (- is missing)", "videos"])


def _paths(paths: Sequence[Path], data_root: str) -> str:
    names = [f"{'' if path.exists() else '- '}{path.relative_to(data_root)}" for path in paths]
    if len(names) < MANY:
        return "\n".join(names)
    missing = [name for name in names if name.startswith("- ")]
    some = f"- {len(missing)} of {len(names)} files are missing" if missing else f"... {len(names)} files"
    return "\n".join([missing[0] if missing else names[0], some])


def load_for_statistics(entries: Sequence[Entry], data_root: str, filters: Filters) -> list[Part]:
    """Load what the trainer would and, of benchmarks, what an evaluation would.

    Raises:
        ValueError: as `load_parts` does.
    """
    benchmarks = {entry for entry in entries if open_source(entry.name, data_root).only_evaluates}
    train = [entry for entry in entries if entry not in benchmarks]
    trained = iter(load_parts(train, data_root=data_root, filters=filters))
    return [
        load_benchmark(entry, data_root=data_root) if entry in benchmarks else next(trained)
        for entry in entries
    ]


def run(args: argparse.Namespace) -> None:
    """Run a parsed command."""
    if args.command == "list":
        sys.stdout.write(overview(args.data_root) + "\n")
        return
    if args.command != "stats":
        {"make-verifying": make_verifying, "make-planning": make_planning}[args.command](args)
        return
    filters = Filters(**{f.name: getattr(args, f.name) for f in fields(Filters)})
    parts = load_for_statistics(parse_entries(",".join(args.names)), args.data_root, filters)
    sys.stdout.write(statistics(parts, look_for_videos=True) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 2 for data that cannot be used.
    """
    return run_command(lambda: build_parser().parse_args(argv), run)


if __name__ == "__main__":
    sys.exit(main())
