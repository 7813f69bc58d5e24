"""One table of several predictions of grounding: `... compare before=PATH after=PATH --out results.json`.

A path is a file or folder of predictions as `infer` writes them; several data sets may lie below it.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from videomind.eval.evaluate import read_records
from videomind.eval.metrics import grounding_metrics
from videomind.eval.workers import RESULT
from videomind.files import labelled_paths, write_json
from videomind.logger import setup_logging

log = logging.getLogger(__name__)


def predictions(folder: Path) -> dict[str, list[dict]]:
    """Records of every data set below a folder, by its name.

    Raises: ValueError when there are none.
    """
    found = sorted(folder.glob(f"**/{RESULT}"))
    if not found:
        raise ValueError(f"No predictions ({RESULT}) below {folder}")
    records: dict[str, list[dict]] = {}
    for path in found:
        rows = read_records(path).rows
        records.setdefault(rows[0]["source"] if rows else path.parent.name, []).extend(rows)
    return records


def compare(runs: dict[str, Path]) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics per data set and run, in percent. Args: runs, a label to a folder of predictions."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for label, folder in runs.items():
        for name, rows in predictions(folder).items():
            table.setdefault(name, {})[label] = {**grounding_metrics(rows), "samples": len(rows)}
    return table


def render(table: dict[str, dict[str, dict[str, float]]]) -> str:
    """A text table, one line per data set and run."""
    rows = [
        [name, label, *(f"{v:.1f}" if key != "samples" else v for key, v in metrics.items())]
        for name, runs in table.items()
        for label, metrics in runs.items()
    ]
    columns = next(iter(next(iter(table.values())).values()))
    return tabulate(rows, headers=["data set", "model", *columns], disable_numparse=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command-line entry. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="videomind compare", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="LABEL=PATH")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args(argv)
    setup_logging()
    try:
        table = compare(labelled_paths(args.runs))
    except ValueError as error:
        log.error("%s", error)
        return 2
    sys.stdout.write(render(table) + "\n")
    if args.out:
        write_json(args.out, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
