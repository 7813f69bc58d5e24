"""Measures of one record: is an answer right, how far do moments overlap. No files, no records, no tables.

Overlaps are float32, as in the published figures: CG-Bench's union IoU can divide by almost nothing, where
the precision decides.

Shapes: P predictions, W true windows.
"""

from typing import Any

import numpy as np

from videomind import spans

SUMMED_ALIKE = 4  # up to so many values numpy adds in the same order as torch


def check_ans(response: str | None, *, num_options: int, ans: str) -> bool | None:
    """Tell whether a multiple-choice response is right.

    Only the first letter of the text before the first space counts, without brackets and dots: "(B) two"
    and "best" are both B. Scores stay comparable with published ones this way.

    Args:
        response: what was answered.
        num_options: how many options there were.
        ans: the letter of the right one.

    Returns:
        None if the response does not start with the letter of an option.
    """
    token = (response or "").lower().split(" ")[0].translate(str.maketrans("", "", "()."))
    letters = option_letters(num_options)
    return token[0] == ans.lower() if token and token[0] in letters else None


def option_letters(num_options: int) -> list[str]:
    """List the letters of options: a, b, and so on."""
    return [chr(ord("a") + i) for i in range(num_options)]


def compute_iou(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Compute pairwise IoU.

    Args:
        pred: (P, 2), s.
        truth: (W, 2), s.

    Returns:
        (P, W), 0 where both have no length.
    """
    return np.nan_to_num(spans.iou(pred, truth), nan=0.0)


def compute_iop(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Compute pairwise intersection over prediction.

    Args:
        pred: (P, 2), s.
        truth: (W, 2), s.

    Returns:
        (P, W), 0 where a prediction has no length.
    """
    return np.nan_to_num(spans.iop(pred, truth), nan=0.0)


def as_float32(values: Any) -> np.ndarray:
    """Read numbers, or rows of as many numbers each, as float32.

    Raises:
        ValueError: they are something else.
    """
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "biuf":
        raise ValueError(f"these are not numbers only: {str(values)[:80]}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def union_iou(
    pred: np.ndarray, truth: np.ndarray, *, conf: np.ndarray | None = None, conf_thr: float = -1.0
) -> float:
    """Compute the IoU of the first prediction, and all confident ones, with all true windows (CG-Bench).

    Intersections and lengths are summed pair by pair, as in the published figures: windows that overlap
    each other count twice, so that the value may exceed 1, or be negative where the "union" is.

    Args:
        pred: (P, 2), s.
        truth: (W, 2), s.
        conf: (P,), confidences.
        conf_thr: predictions with a confidence above it join the first one; 0 or less: only the first.
    """
    if not len(pred) or not len(truth):
        return 0.0
    keep = np.zeros(len(pred), dtype=bool)
    if conf_thr > 0:
        keep = conf > np.float32(conf_thr)
    keep[0] = True
    pred = pred[keep]
    inter = _total(spans.intersection(pred, truth))
    union = _total(spans.length(pred)) + _total(spans.length(truth)) - inter
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = inter / union
    return ratio.item() if np.isfinite(ratio) else 0.0


def _total(values: np.ndarray) -> np.float32:
    """Add float32 values as torch does, by which published figures were made; the order decides."""
    if values.size <= SUMMED_ALIKE:
        return values.sum(dtype=np.float32)
    import torch

    return torch.from_numpy(values).sum().numpy()[()]
