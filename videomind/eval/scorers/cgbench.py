"""CG-Bench (arXiv 2412.12075): all clues of a question count together.

The IoU of a record is that of its first prediction, and with `--conf_thr` of all confident ones, with all
clues together; rec.@IoU and acc.@IoU are means over five overlaps.
"""

from typing import ClassVar

import numpy as np

from videomind.eval.metrics import as_float32, union_iou
from videomind.eval.scorer import Option
from videomind.eval.scorers.default import (
    DefaultScorer,
    Overlap,
    as_windows,
    is_question,
    judge,
    recall_names,
    true_windows,
)
from videomind.eval.tables import Marks, TableForm
from videomind.prediction import Prediction

RANKS = (1,)
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
MEAN, RECALL, ACC, ACC_IOU = "mIoU", "rec.@IoU", "long-acc.", "acc.@IoU"


class CGBenchScorer(DefaultScorer):
    """Scores questions about long videos and the clues that were found for them.

    Args:
        conf_thr: predictions with a confidence above it join the first one; 0 or less: only the first.
    """

    name = "cgbench"
    tables: ClassVar = {
        "iou": TableForm(
            title="Grounding (IoU)",
            columns=(*recall_names(RANKS, THRESHOLDS), MEAN, RECALL),
            field="pred",
            measure="IoU",
        ),
        "qa": TableForm(title="QA", columns=(ACC, ACC_IOU), field="response"),
    }
    options = (
        Option(
            name="conf_thr",
            help="predictions with a confidence above this join the first one (<= 0: none)",
            default=-1.0,
            type=float,
        ),
    )
    compared: ClassVar = {MEAN: ("iou", MEAN), RECALL: ("iou", RECALL)}
    compared_answers: ClassVar = {ACC: ("qa", ACC), ACC_IOU: ("qa", ACC_IOU), **compared}

    def __init__(self, conf_thr: float = -1.0):
        self.conf_thr = conf_thr

    def score_record(self, prediction: Prediction) -> dict[str, Marks]:
        marks = {}
        truth = true_windows(prediction)
        overlap = Overlap(top=np.zeros(1, np.float32), before=np.zeros(0, np.float32))
        if truth is not None:
            overlap = self._overlap(prediction, truth)
            recalls = overlap.recalls(RANKS, THRESHOLDS)
            values = {**recalls, MEAN: 100 * overlap.first, RECALL: sum(recalls.values()) / len(recalls)}
            has_failed = prediction.grounder_success is False
            marks["iou"] = Marks(values=values, failed=has_failed, change=overlap.change)
        if is_question(prediction):
            verdict = judge(prediction)
            hits = [verdict is True and recall for recall in overlap.recalls(RANKS, THRESHOLDS).values()]
            values = {ACC: 100.0 * (verdict is True), ACC_IOU: sum(hits) / len(hits)}
            marks["qa"] = Marks(values=values, failed=verdict is None)
        return marks

    def _overlap(self, prediction: Prediction, truth: np.ndarray) -> Overlap:
        first = self._union(prediction.pred, prediction.conf, truth, "conf")
        before = self._union(prediction.pred_ori, prediction.conf_ori, truth, "conf_ori")
        return Overlap(top=as_float32([first]), before=as_float32([before] if prediction.pred_ori else []))

    def _union(
        self, windows: list[list[float]] | None, scores: list[float] | None, truth: np.ndarray, name: str
    ) -> float:
        if self.conf_thr <= 0:
            return union_iou(as_windows(windows, 1), truth)
        pred, conf = as_windows(windows), as_float32(scores or ())
        if len(conf) != len(pred):
            raise ValueError(f"{name!r} is not a list of {len(pred)} numbers, one per prediction")
        return union_iou(pred, truth, conf=conf, conf_thr=self.conf_thr)
