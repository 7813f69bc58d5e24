"""One table of several predictions: `... compare before=PATH after=PATH --out results.json`.

A path is a file or folder of predictions as `infer` writes them; several data sets and splits may lie below
it. Each data set is scored by its own scorer. With `--judged` a path is the `.metrics.json` of a judge.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from videomind.eval.choice import choose_scorer
from videomind.eval.records import Run, labelled_runs
from videomind.eval.report import OVERALL
from videomind.eval.scorer import Scorer
from videomind.eval.tables import Evaluation
from videomind.files import labelled_paths, read_json, write_json
from videomind.logger import run_command
from videomind.prediction import Prediction

Figures = dict[str, float | None]
Comparison = dict[str, dict[str, Figures]]  # data set, then run


def compare_moments(paths: Mapping[str, Path]) -> Comparison:
    """Compare figures per data set and run, in percent.

    Args:
        paths: label to a file or folder of predictions.
    """
    table: Comparison = {}
    for name, runs in labelled_runs(paths).items():
        for label, run in runs.items():
            scorer, evaluation = _evaluate(run)
            figures = _figures(evaluation, scorer.compared) | _counts(run.predictions)
            table.setdefault(name, {})[label] = figures
    return table


def compare_questions(paths: Mapping[str, Path]) -> Comparison:
    """Compare answers per task: accuracy, overlap and how often a moment was looked for, in percent.

    A question answered without a moment has an overlap of 0; a run that looked for none has no overlap.
    """
    table: Comparison = {}
    for name, runs in labelled_runs(paths).items():
        for label, run in runs.items():
            scorer, evaluation = _evaluate(run)
            tasks = sorted({task for prediction in run.predictions for task in prediction.tasks})
            for task in (*tasks, None):
                asked = [p for p in run.predictions if task in (None, *p.tasks)]
                grounded = sum("grounder" in (p.agents or ()) for p in asked)
                figures = _figures(evaluation, scorer.compared_answers, task)
                share = {"grounded": 100 * grounded / len(asked)}
                table.setdefault(f"{name} {task or OVERALL}", {})[label] = figures | share | _counts(asked)
    return table


def _evaluate(run: Run) -> tuple[Scorer, Evaluation]:
    scorer = choose_scorer(run.predictions, run.split)()
    return scorer, scorer.evaluate(run.predictions, run.origins)


def _figures(
    evaluation: Evaluation, columns: Mapping[str, tuple[str, str]], task: str | None = None
) -> Figures:
    """Pick columns of an evaluation, of a task or of all records; None where no sample counts."""
    tables = evaluation.tables
    columns = columns or {name: (table, name) for table in tables for name in tables[table].overall.values}
    rows = {name: table.overall if task is None else table.tasks[task] for name, table in tables.items()}
    return {
        label: rows[table].values[column] if rows[table].samples else None
        for label, (table, column) in columns.items()
    }


def _counts(predictions: Sequence[Prediction]) -> Figures:
    """Count the samples, and those that failed if any did."""
    failed = sum(prediction.error is not None for prediction in predictions)
    return {"samples": len(predictions)} | ({"failed": failed} if failed else {})


def compare_judged(runs: Mapping[str, Path]) -> Comparison:
    """Compare answers that a judge has scored, per criterion.

    Args:
        runs: label to the metrics that the judge wrote.

    Returns:
        Accuracy in percent, None where the criterion has no verdict, and the average score, 0 to 5.

    Raises:
        ValueError: a file is of another kind.
    """
    table: Comparison = {}
    for label, path in runs.items():
        judged = read_json(path)
        if not isinstance(judged, dict) or not {"criterion", "accuracy", "average_score"} <= judged.keys():
            raise ValueError(f"{path} does not hold the metrics of a judge (.metrics.json)")
        table.setdefault(judged["criterion"], {})[label] = {
            "accuracy": None if judged["accuracy"] is None else 100 * judged["accuracy"],
            "score": judged["average_score"],
            "samples": judged["scored"],
        }
    return table


def render_comparison(table: Comparison) -> str:
    """Show a text table, one line per data set and run; "-" where a run has no such figure."""
    lines = [(name, label, figures) for name, runs in table.items() for label, figures in runs.items()]
    columns = list(dict.fromkeys(column for _, _, figures in lines for column in figures))

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else f"{value}"

    rows = [
        [name, label, *(shown(figures.get(column)) for column in columns)] for name, label, figures in lines
    ]
    return tabulate(rows, headers=["data set", "model", *columns], disable_numparse=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="videomind compare", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="LABEL=PATH")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--questions", action="store_true", help="accuracy too, and per task")
    kind.add_argument("--judged", action="store_true", help="paths are metrics of `videomind judge`")
    parser.add_argument("--out", help="also write the figures to this JSON file")
    return run_command(lambda: parser.parse_args(argv), run)


def run(args: argparse.Namespace) -> None:
    """Compare what the command line names."""
    compared = compare_questions if args.questions else compare_judged if args.judged else compare_moments
    table = compared(labelled_paths(args.runs))
    if args.out:
        write_json(args.out, table)
    sys.stdout.write(render_comparison(table) + "\n")


if __name__ == "__main__":
    sys.exit(main())
