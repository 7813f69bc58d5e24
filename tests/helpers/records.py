"""Records that the tests of the scorers read."""

from videomind.eval.scorer import Scorer
from videomind.eval.scorers.default import DefaultScorer
from videomind.eval.tables import Evaluation, Scores
from videomind.prediction import Prediction


def record(pred, span=((0.0, 10.0),), **fields) -> dict:
    """A record with true windows and predictions as the files have them."""
    return {"span": [list(s) for s in span], "pred": [list(p) for p in pred], **fields}


def evaluate(rows: list[dict], scorer: Scorer | None = None) -> Evaluation:
    """What a scorer makes of JSON objects."""
    return (scorer or DefaultScorer()).evaluate([Prediction.from_json(row) for row in rows])


def overall(rows: list[dict], table: str = "iou", scorer: Scorer | None = None) -> Scores:
    """The overall row of a table."""
    return evaluate(rows, scorer).tables[table].overall
