"""Time spans in seconds: the one place for overlap, clamping, widening, averaging and rounding.

Spans are rows of `[start, end]`. The overlap measures follow `nncore.ops.temporal_iou` and
`temporal_iof`, of which the published figures were made: no clamping of reversed spans, and 0/0 is nan.
Arrays are numpy's or torch's: what is called here, both have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Span = Sequence[float]  # [start, end], s
Array = TypeVar("Array", np.ndarray, "Tensor")


def length(spans: Array) -> Array:
    """Measure spans (N, 2) in s: (N,), s; negative where reversed."""
    return spans[:, 1] - spans[:, 0]


def intersection(a: Array, b: Array) -> Array:
    """Measure the overlap of every a (N, 2) with every b (M, 2) in s: (N, M), s, never negative."""
    start = a[:, None, 0].clip(min=b[None, :, 0])  # (N, M)
    end = a[:, None, 1].clip(max=b[None, :, 1])
    return (end - start).clip(min=0)


def iou(a: Array, b: Array) -> Array:
    """Divide intersection by union, of every a (N, 2) with every b (M, 2): (N, M); nan for 0/0."""
    inter = intersection(a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        return inter / (length(a)[:, None] + length(b)[None, :] - inter)


def best_iou(candidates: Sequence[Span], truths: Sequence[Span]) -> np.ndarray:
    """Find the largest IoU of each candidate with a true span, 0/0 counting as 0, in float32.

    Args:
        candidates: (N, 2), s.
        truths: (M, 2), s.

    Returns:
        (N,); 0 without truths.
    """
    if not len(candidates) or not len(truths):
        return np.zeros(len(candidates), dtype=np.float32)
    ratio = iou(np.array(candidates, dtype=np.float32), np.array(truths, dtype=np.float32))  # (N, M)
    ratio[~np.isfinite(ratio)] = 0
    return ratio.max(axis=1)


def iop(pred: Array, truth: Array) -> Array:
    """Divide intersection by *prediction*, of every pred (N, 2) with every truth (M, 2), s.

    Returns:
        (N, M); nan where a prediction has no length.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return intersection(pred, truth) / length(pred)[:, None]


def fit(span: Sequence[float], duration_s: float, min_len_s: float = -1.0) -> list[float]:
    """Fit a span into a video, at least `min_len_s` long.

    Both ends are clamped to the video and sorted. A span shorter than the minimum becomes a window of
    exactly that length about the same centre, slid to stay inside; a video shorter than the minimum is
    returned whole.

    Args:
        span: [start, end], s.
        duration_s: of the video.
        min_len_s: the shortest span that comes out; negative is no minimum.

    Returns:
        [start, end], s.
    """
    start, end = sorted(min(max(0, t), duration_s) for t in span)
    if min_len_s > 0 and end - start < min_len_s:
        center = (start + end) / 2
        center = min(max(min_len_s / 2, center), duration_s - min_len_s / 2)
        start, end = center - min_len_s / 2, center + min_len_s / 2
        start, end = (min(max(0, t), duration_s) for t in (start, end))
    return [start, end]


def what_is_odd(moments: Iterable[Span], duration_s: float | None = None) -> list[str]:
    """Say what is strange about true moments, each thing once.

    Args:
        moments: [start, end], s.
        duration_s: of the video, if that is known.
    """
    remarks = []
    for start, end in moments:
        if not (math.isfinite(start) and math.isfinite(end)):
            remarks.append("moment with an end that is no number")
        elif end <= start:
            remarks.append("moment ends before it starts, or at once")
        if start < 0 or end < 0:
            remarks.append("moment begins before the video")
        if duration_s is not None and (end > duration_s or start > duration_s):
            remarks.append("moment reaches beyond the video's end")
    return list(dict.fromkeys(remarks)) if remarks else remarks


def widen(span: Sequence[float], duration_s: float, ratio: float = 0.5) -> list[float]:
    """Widen a span on both sides by `ratio` of its length and clamp it to the video (all in s)."""
    margin = (span[1] - span[0]) * ratio
    return fit((span[0] - margin, span[1] + margin), duration_s)


def to_seconds(boundaries: Tensor, *, duration_s: float, unit_s: float) -> Tensor:
    """Turn normalised predictions into seconds on the source's grid.

    Args:
        boundaries: (N, 2), fractions of the video.
        duration_s: of the video.
        unit_s: the grid to round to.

    Returns:
        (N, 2), s, clamped to the video before rounding, each row with start <= end.
    """
    spans = (boundaries * duration_s).clamp(min=0, max=duration_s)
    spans = (spans / unit_s).round() * unit_s
    return spans.sort(dim=1).values


def plain_sum(values: Iterable[float]) -> float:
    """Add values from left to right, each addition rounded, as published figures were made.

    Python's `sum` does so up to 3.11; from 3.12 on it carries along what rounding loses, and the last digits
    differ.
    """
    return reduce(add, values, 0)


def plain_mean(values: Collection[float]) -> float:
    """Divide the sum of values by their number."""
    return plain_sum(values) / len(values)
