"""One table of several predictions: `... compare before=PATH after=PATH --out results.json`.

A path is a file or folder of predictions as `infer` writes them; several data sets may lie below it. With
`--judged` it is the `.metrics.json` of a judge.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from videomind.eval.evaluate import read_records
from videomind.eval.metrics import evaluate, grounding_metrics, tasks_of
from videomind.files import labelled_paths, read_json, write_json
from videomind.logger import setup_logging
from videomind.runs.workers import RESULT

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


def compare_judged(runs: dict[str, Path]) -> dict[str, dict[str, dict[str, float | None]]]:
    """The same for answers that a judge has scored, per criterion.

    Args: runs, a label to the metrics that the judge wrote.
    Returns: accuracy in percent, None where the criterion has no verdict, and the average score, 0 to 5.
    Raises: ValueError for a file of another kind.
    """
    table: dict[str, dict[str, dict[str, float | None]]] = {}
    for label, path in runs.items():
        found = read_json(path)
        if not isinstance(found, dict) or not {"criterion", "accuracy", "average_score"} <= found.keys():
            raise ValueError(f"{path} does not hold the metrics of a judge (.metrics.json)")
        table.setdefault(found["criterion"], {})[label] = {
            "accuracy": None if found["accuracy"] is None else 100 * found["accuracy"],
            "score": found["average_score"],
            "samples": found["scored"],
        }
    return table


def render(table: dict[str, dict[str, dict[str, float | None]]]) -> str:
    """A text table, one line per data set and run."""

    def shown(key: str, value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}" if key != "samples" else f"{value}"

    rows = [
        [name, label, *(shown(key, value) for key, value in metrics.items())]
        for name, runs in table.items()
        for label, metrics in runs.items()
    ]
    columns = next(iter(next(iter(table.values())).values()))
    return tabulate(rows, headers=["data set", "model", *columns], disable_numparse=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command-line entry. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="videomind compare", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="LABEL=PATH")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--questions", action="store_true", help="accuracy too, and per task")
    kind.add_argument("--judged", action="store_true", help="paths are metrics of `videomind judge`")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    args = parser.parse_args(argv)
    compared = compare_questions if args.questions else compare_judged if args.judged else compare
    setup_logging()
    try:
        table = compared(labelled_paths(args.runs))
    except ValueError as error:
        log.error("%s", error)
        return 2
    sys.stdout.write(render(table) + "\n")
    if args.out:
        write_json(args.out, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
