"""One table of several predictions: `... compare before=PATH after=PATH --out results.json`.

A path is a file or folder of predictions as `infer` writes them; several data sets may lie below it.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from videomind.eval.evaluate import read_records
from videomind.eval.metrics import evaluate, grounding_metrics, tasks_of
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


def compare_questions(runs: dict[str, Path]) -> dict[str, dict[str, dict[str, float]]]:
    """The same for questions, per task: accuracy, overlap and how often a moment was looked for, in percent.

    A task whose questions were answered without a moment has an overlap of 0.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for label, folder in runs.items():
        for name, rows in predictions(folder).items():
            scores = evaluate(rows)
            for task in (*scores.qa.tasks, None):
                asked = [row for row in rows if task in (None, *tasks_of(row))]
                grounded = sum("grounder" in row.get("agents", ()) for row in asked)
                iou, iop, qa = (
                    part.overall if task is None else part.tasks[task]
                    for part in (scores.iou, scores.iop, scores.qa)
                )
                table.setdefault(f"{name} {task or 'all'}", {})[label] = {
                    "accuracy": qa.values["Acc"],
                    "Acc@GQA": qa.values["Acc (IoP >= 0.5)"],
                    "R1@0.5": iou.values["R1@0.5"],
                    "mIoU": iou.values["mIoU"],
                    "mIoP": iop.values["mIoP"],
                    "grounded": 100 * grounded / len(asked),
                    "samples": len(asked),
                }
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
    parser.add_argument("--questions", action="store_true", help="accuracy too, and per task")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args(argv)
    setup_logging()
    try:
        table = (compare_questions if args.questions else compare)(labelled_paths(args.runs))
    except ValueError as error:
        log.error("%s", error)
        return 2
    sys.stdout.write(render(table) + "\n")
    if args.out:
        write_json(args.out, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
