"""`videomind data`: what data sets hold, and training data for the verifier and the planner."""

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from videomind.dataset.base import get_source, source_names
from videomind.dataset.filters import Filters
from videomind.dataset.making import GROUND_ONLY, planning_row, rephrase_prompt, verifying_rows
from videomind.dataset.parts import load_parts, parse_entries
from videomind.dataset.readers import read_rows
from videomind.dataset.statistics import statistics
from videomind.endpoint import Endpoint
from videomind.files import write_text
from videomind.logger import run_reporting, setup_logging
from videomind.prediction import read_predictions

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
    """Write a verifying file. Raises: ValueError when no prediction can be used."""
    numbered = enumerate(read_rows(args.predictions), 1)
    records = read_predictions((f"{args.predictions}, record {number}", row) for number, row in numbered)
    rows = list(verifying_rows(records))
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
    done = {_key(row) for row in read_rows(args.out)} if Path(args.out).is_file() else set()
    parts = load_parts(parse_entries(",".join(args.names)), data_root=args.data_root, seed=args.seed)
    routes: Counter[int] = Counter()
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    with open(args.out, "a", encoding="utf-8") as file:
        chosen = [anno for part in parts for anno in part.chosen(args.seed)]
        for anno in tqdm(chosen, desc=args.out, unit=" rows", delay=2):
            if (anno.video_path, anno.question or anno.query) in done:
                continue
            if row := planning_row(anno, rephrase):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                routes[row["route"]] += 1
    log.info("Wrote %s: %s", args.out, ", ".join(f"route {r}: {n}" for r, n in sorted(routes.items())))


def _key(row: dict) -> tuple:
    return row["video_path"], row["question"] if row["route"] != GROUND_ONLY else row["query"]


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
    if args.command != "stats":
        {"make-verifying": make_verifying, "make-planning": make_planning}[args.command](args)
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
