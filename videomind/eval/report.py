"""What a person reads: tables of an evaluation as text, and the files they go to."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tabulate import tabulate

from videomind.eval.metrics import Evaluation, Table
from videomind.eval.qvhighlights import QVHighlightsScores

OVERALL = "all"


def _table(table: Table) -> str:
    """One row per task, the overall one last."""
    rows = [
        [name, scores.samples, scores.failed, *(f"{value:.2f}" for value in scores.values.values())]
        for name, scores in [*table.tasks.items(), (OVERALL, table.overall)]
    ]
    header = ["Task", "#Samples", "Failed", *table.overall.values]
    return tabulate(rows, header, tablefmt="pretty", stralign="left", numalign="left")


def _grounding(table: Table, measure: str) -> str:
    """A grounding table and what the verifier changed."""
    overall = table.overall
    lines = [f"Grounding ({measure}):", _table(table), ""]
    for name, count in (("Raise", overall.raised), ("Lower", overall.lowered)):
        share = 100 * count / max(1, overall.samples)
        lines.append(f"{measure} {name} ({overall.samples} Samples): {count} ({share:.2f}%)")
    return "\n".join(lines)


def render(evaluation: Evaluation) -> str:
    """The tables of a run: grounding by IoU, by IoP, and answers; empty without ground truth."""
    if evaluation.unlabelled:
        return ""
    sections = [_grounding(evaluation.iou, "IoU")]
    if evaluation.iop is not None:
        sections.append(_grounding(evaluation.iop, "IoP"))
    sections.append(f"QA:\n{_table(evaluation.qa)}")
    return "\n\n".join(sections) + "\n"


def render_qvhighlights(scores: QVHighlightsScores) -> str:
    """The headline numbers, one per line; empty without ground truth."""
    return "".join(f"{name}: {value}\n" for name, value in scores.metrics.get("brief", {}).items())


def remarks(evaluation: Evaluation) -> Iterator[str]:
    """What a reader must know to trust the tables, one sentence each."""
    if evaluation.unlabelled:
        yield (
            f"None of the {evaluation.unlabelled} records has ground truth ('span', or 'options' and 'ans'): "
            "nothing to score"
        )
    for count, key in ((evaluation.without_pred, "pred"), (evaluation.without_response, "response")):
        if count:
            yield f"{count} labelled records have no {key!r}; each scores 0"
    if evaluation.repeated:
        yield (
            f"{evaluation.repeated} records repeat the annotation of another one and count again "
            "(are chunks of two runs mixed?)"
        )


def remarks_qvhighlights(scores: QVHighlightsScores) -> Iterator[str]:
    """What a reader must know to trust the numbers, one sentence each."""
    if scores.unlabelled:
        yield f"{scores.unlabelled} annotations have no ground truth and do not count"
    if not scores.metrics:
        yield "There is no ground truth for what is predicted: nothing to score"
    for qids, text in (
        (scores.missing, "annotated queries have no prediction; each scores 0"),
        (scores.unknown, "predictions have no annotation and are left out"),
        (scores.repeated, "qids are predicted twice alike and count once"),
    ):
        if qids:
            yield f"{len(qids)} {text}: qid {', '.join(qids[:5])}{', ...' if len(qids) > 5 else ''}"
    for name in scores.empty_ranges:
        yield f"No true window is of range {name!r}: its numbers repeat those of 'full'"


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with write_text."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
