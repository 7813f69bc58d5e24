"""Moments and answers by choice, as the published figures of most benchmarks were made.

Per task and over all records: recall of the first k moments at several overlaps and their mean, by
intersection over union and over *prediction*; accuracy, alone and together with an overlap (Acc@GQA of
NExT-GQA, arXiv 2309.01327). With several true windows the best one counts.

Shapes: K predictions looked at, W true windows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from videomind.eval.metrics import as_float32, check_ans, compute_iop, compute_iou, option_letters
from videomind.eval.scorer import Scorer
from videomind.eval.tables import Marks, TableForm
from videomind.prediction import Prediction
from videomind.spans import what_is_odd

RANKS = (1, 3, 5)  # the k of R@k
THRESHOLDS = (0.3, 0.5, 0.7)
ANSWER_THRESHOLD = 0.5  # the overlap with which a right answer counts as grounded
ACC, ACC_IOU, ACC_IOP = "Acc", f"Acc (IoU >= {ANSWER_THRESHOLD})", f"Acc (IoP >= {ANSWER_THRESHOLD})"
LEFT_OUT = "the answer is none of the options, so it cannot be scored"
ODD_PREDICTION = "predicted moment that begins before the video, ends before it starts, or is no number"
NEVER_RIGHT = "the letter of the answer is no option's, so that every answer is wrong"
_SHOWN = 80  # characters of a wrong value in a message


def recall_names(ranks: Sequence[int], thresholds: Sequence[float]) -> tuple[str, ...]:
    """Name the columns of recall."""
    return tuple(f"R{k}@{threshold}" for k in ranks for threshold in thresholds)


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """One overlap measure of a record.

    Attributes:
        top: (K,), of each prediction with its best true window, best prediction first.
        before: (1,), of the first prediction before the verifier; (0,) where it did not run.
    """

    top: np.ndarray
    before: np.ndarray

    @property
    def first(self) -> float:
        """Of the best prediction; 0 without one."""
        return self.top[0].item() if len(self.top) else 0.0

    @property
    def change(self) -> int:
        """Whether the verifier raised (1) or lowered (-1) it."""
        before = self.before.tolist()
        return (self.first > before[0]) - (self.first < before[0]) if before else 0

    def recalls(self, ranks: Sequence[int], thresholds: Sequence[float]) -> dict[str, float]:
        """Compute the recall of the first k predictions at every overlap, in percent; equal is enough."""
        hits = [bool((self.top[:k] >= np.float32(t)).any()) for k in ranks for t in thresholds]
        return {name: 100.0 * hit for name, hit in zip(recall_names(ranks, thresholds), hits, strict=True)}


class DefaultScorer(Scorer):
    """Scores moments (`span`) and answers by choice (`options` and `ans`)."""

    name = "default"
    tables: ClassVar = {
        "iou": TableForm(
            title="Grounding (IoU)",
            columns=(*recall_names(RANKS, THRESHOLDS), "mIoU"),
            field="pred",
            measure="IoU",
        ),
        "iop": TableForm(
            title="Grounding (IoP)",
            columns=(*recall_names(RANKS, THRESHOLDS), "mIoP"),
            field="pred",
            measure="IoP",
        ),
        "qa": TableForm(title="QA", columns=(ACC, ACC_IOU, ACC_IOP), field="response"),
    }
    compared: ClassVar = {name: ("iou", name) for name in ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")}
    compared_answers: ClassVar = {
        "accuracy": ("qa", ACC),
        "Acc@GQA": ("qa", ACC_IOP),
        "R1@0.5": ("iou", "R1@0.5"),
        "mIoU": ("iou", "mIoU"),
        "mIoP": ("iop", "mIoP"),
    }

    def score_record(self, prediction: Prediction) -> dict[str, Marks]:
        overlaps = _overlaps(prediction)
        marks = {}
        for name, overlap in overlaps.items():
            mean = self.tables[name].columns[-1]
            values = {**overlap.recalls(RANKS, THRESHOLDS), mean: 100 * overlap.first}
            has_failed = prediction.grounder_success is False
            marks[name] = Marks(values=values, failed=has_failed, change=overlap.change)
        if is_question(prediction):
            verdict = judge(prediction)
            grounded = {name: overlap.first >= ANSWER_THRESHOLD for name, overlap in overlaps.items()}
            hits = {
                ACC: verdict is True,
                ACC_IOU: verdict is True and grounded.get("iou", False),
                ACC_IOP: verdict is True and grounded.get("iop", False),
            }
            marks["qa"] = Marks(
                values={name: 100.0 * hit for name, hit in hits.items()}, failed=verdict is None
            )
        return marks

    def oddities(self, prediction: Prediction) -> list[str]:
        true_windows(prediction)  # they have the right form
        windows = np.asarray(prediction.annotation.get("span") or (), dtype=np.float64).reshape(-1, 2)
        is_number = type(prediction.duration) in (int, float)
        odd = what_is_odd(windows.tolist(), prediction.duration if is_number else None)
        odd += [ODD_PREDICTION] if any(map(_is_impossible, prediction.pred or ())) else []
        return [*odd, *filter(None, [self._answer_oddity(prediction)])]

    def _answer_oddity(self, prediction: Prediction) -> str | None:
        options, answer, ans = map(prediction.annotation.get, ("options", "answer", "ans"))
        if not isinstance(options, list):
            return None
        if ans is None:
            return None if answer is None else LEFT_OUT
        return None if str(ans).lower() in option_letters(len(options)) else NEVER_RIGHT


def _is_impossible(moment: Sequence[float]) -> bool:
    return not 0 <= moment[0] <= moment[1] < math.inf


def is_question(prediction: Prediction) -> bool:
    """Tell whether a record asks for one of several options and says which is right."""
    return all(prediction.annotation.get(name) is not None for name in ("options", "ans"))


def judge(prediction: Prediction) -> bool | None:
    """Judge the response to a question.

    Returns:
        Whether it is right; None if it is not the letter of an option.

    Raises:
        ValueError: the options are no list, or the right one's letter no text.
    """
    for name, form, expected in (("options", list, "a list"), ("ans", str, "the right option's letter")):
        if not isinstance(value := prediction.annotation[name], form):
            raise ValueError(f"{name!r} is {str(value)[:_SHOWN]}, expected {expected}")
    options, ans = prediction.annotation["options"], prediction.annotation["ans"]
    return check_ans(prediction.response, num_options=len(options), ans=ans)


def true_windows(prediction: Prediction) -> np.ndarray | None:
    """Read the true windows of a record, (W, 2) float32, s; None if it has none to find.

    Raises:
        ValueError: they have another form.
    """
    value = prediction.annotation.get("span")
    if value is None:
        return None
    try:
        return as_windows(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"'span' is {str(value)[:_SHOWN]}, expected [[start, end], ...] in seconds"
        ) from None


def as_windows(value: Any, limit: int | None = None) -> np.ndarray:
    """Read the first `limit` of a list of [start, end], None being none of them, as (N, 2) float32.

    Raises:
        ValueError: it is something else.
    """
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{str(value)[:_SHOWN]} is no list of [start, end]")
    windows = as_float32(list(value or ())[:limit])
    return windows.reshape(0, 2) if windows.size == 0 else windows.reshape(len(windows), 2)


def _overlaps(prediction: Prediction) -> dict[str, Overlap]:
    """Compute both measures of a record, by the names of their tables; neither without true windows."""
    truth = true_windows(prediction)
    if truth is None:
        return {}
    looked_at = as_windows(prediction.pred, max(RANKS))
    windows = np.concatenate((looked_at, as_windows(prediction.pred_ori, 1)))  # (K + 1, 2) or (K, 2)
    overlaps = {}
    for name, compute in (("iou", compute_iou), ("iop", compute_iop)):
        best = compute(windows, truth).max(axis=1) if len(truth) else np.zeros(len(windows), np.float32)
        overlaps[name] = Overlap(top=best[: len(looked_at)], before=best[len(looked_at) :])
    return overlaps
