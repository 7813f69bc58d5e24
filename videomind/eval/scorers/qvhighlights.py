"""QVHighlights (arXiv 2107.09609): the submission for its server, and the official metrics of one.

The server wants every query of the split in one file, and takes none with a query missing.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from videomind.eval import report
from videomind.eval.qvhighlights import check_rows, evaluate_qvhighlights
from videomind.eval.records import read_records
from videomind.eval.scorer import Option, Outcome, Submission, origins_of
from videomind.eval.scorers.default import DefaultScorer
from videomind.prediction import Prediction

WINDOWS = "pred_relevant_windows"
NO_WINDOW = (0, 0, 0)  # start, end, score: overlaps nothing
_OFFICIAL_SPLITS = {"valid": "val"}


class QVHighlightsScorer(DefaultScorer):
    """Scores moments as by default, or with the official annotations by the official metrics.

    Args:
        qvhighlights_anno: file of the official annotations.
    """

    name = "qvhighlights"
    options = (
        Option(
            name="qvhighlights_anno",
            help="annotations of QVHighlights: score a run, or a submission, with the official metrics",
            type=Path,
            decides=True,
        ),
    )

    def __init__(self, qvhighlights_anno: Path | None = None):
        self.annotations = None
        if qvhighlights_anno is not None:
            records = read_records(qvhighlights_anno)
            check_rows(records.rows, records.origins)
            self.annotations = records.rows

    def report(self, predictions: Sequence[Prediction], origins: Sequence[str] | None = None) -> Outcome:
        if self.annotations is None:
            return super().report(predictions, origins)
        rows = [submission_row(prediction) for prediction in predictions]
        check_rows(rows, origins_of(predictions, origins))
        scores = evaluate_qvhighlights(rows, self.annotations)
        return Outcome(
            text=report.render_qvhighlights(scores),
            content=asdict(scores),
            remarks=[*report.remarks_qvhighlights(scores)],
        )

    def submission(self, predictions: Sequence[Prediction], split: str | None) -> Submission | None:
        if any(WINDOWS in prediction.annotation for prediction in predictions):
            return None  # they are one
        split = "" if split is None else f"{_OFFICIAL_SPLITS.get(split, split)}_"
        return Submission(file_name=f"hl_{split}submission.jsonl", rows=[*map(submission_row, predictions)])


def submission_row(prediction: Prediction) -> dict[str, Any]:
    """Make the line of a query.

    Windows keep their order and the grounder's scores. Where it found no moment, what stands in its place
    has score 1: the whole video, or what the verifier chose among. Where a plan skipped it, the whole video
    does, too. A sample that failed has a window that overlaps nothing.

    Raises:
        ValueError: the record does not say which query it is of, or not how good its windows are.
    """
    row = prediction.annotation
    if WINDOWS in row:
        return dict(row)
    if lacking := [name for name in ("vid", "qid") if row.get(name) is None]:
        raise ValueError(f"A record of {row.get('query')!r} has no {lacking[0]!r}: there is no submission")
    return {"vid": row["vid"], "qid": row["qid"], WINDOWS: _scored_windows(prediction)}


def _scored_windows(prediction: Prediction) -> list[list[float]]:
    if prediction.error is not None:
        return [[*NO_WINDOW]]
    if prediction.pred is None:
        return [[0, prediction.duration, 1.0] if prediction.duration else [*NO_WINDOW]]
    is_miss = prediction.grounder_success is False
    scores = [1.0] * len(prediction.pred) if is_miss else prediction.conf or []
    if len(scores) != len(prediction.pred):
        qid = prediction.annotation["qid"]
        raise ValueError(f"qid {qid}: {len(prediction.pred)} windows have {len(scores)} scores ('conf')")
    return [[*window, score] for window, score in zip(prediction.pred, scores, strict=True)] or [[*NO_WINDOW]]
