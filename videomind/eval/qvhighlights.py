"""The official QVHighlights metrics: moment retrieval (MR) and highlight detection (HL).

Formulas: the evaluation of Moment-DETR (arXiv 2107.09609). Top-1 recall takes the predicted windows as
listed; average precision sorts the first ten listed by their score.

Shapes: Q queries, P predicted windows (at most 10), G true windows, T thresholds, C clips of 2 s,
A annotators times levels.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from videomind import spans

CLIP_S = 2
LONGEST_S = 1e6  # of a video
MAX_WINDOWS = 10
NUM_ANNOTATORS = 3
# Lengths of true windows in s, lower end excluded.
RANGES_S = {"full": (-np.inf, np.inf), "long": (30, 150), "middle": (10, 30), "short": (0, 10)}
AP_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.3, 0.95, 14)
LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}  # the least saliency, 0 to 4, that counts as a highlight


@dataclass(frozen=True, kw_only=True)
class QVHighlightsScores:
    """The scores, and what a reader must know to trust them.

    Attributes:
        metrics: the official dictionary, in percent with two decimals: `brief` with the headline
            numbers, `full`, `long`, `middle`, `short` and `HL-min-*`; empty without ground truth.
        queries: how many annotations have ground truth.
        unlabelled: how many have none.
        missing: qids without a prediction, which score 0.
        unknown: predicted qids without annotation, which are left out.
        repeated: qids predicted twice alike, counted once.
        annotated_twice: qids annotated twice alike, counted once.
        odd: reason to count of annotations with odd windows.
        empty_ranges: ranges without a true window; as in the official code they repeat `full`.
    """

    metrics: dict[str, dict]
    queries: int
    unlabelled: int
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    repeated: tuple[str, ...]
    annotated_twice: tuple[str, ...]
    odd: dict[str, int]
    empty_ranges: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Moments:
    """Predicted against true windows.

    Attributes:
        iou: (Q, P, G), in listed order, -1 where either is missing.
        by_score: (Q, P), the places by falling score.
        exists: (Q, P), whether there is a prediction.
        length_s: (Q, G), nan where missing.
    """

    iou: np.ndarray
    by_score: np.ndarray
    exists: np.ndarray
    length_s: np.ndarray


def _percent(value: float) -> float:
    return round(100 * float(value), 2)


def _by_qid(rows: Iterable[Mapping], what: str) -> tuple[dict[str, Mapping], tuple[str, ...]]:
    """Sort rows by qid, and name those of equal duplicates.

    Raises:
        ValueError: A row has no qid, or rows of the same one differ.
    """
    by_qid: dict[str, Mapping] = {}
    repeated = []
    for number, row in enumerate(rows, start=1):
        if row.get("qid") is None:
            raise ValueError(f"Row {number} of the {what} has no 'qid'; its fields: {', '.join(row)}")
        qid = str(row["qid"])
        if by_qid.setdefault(qid, row) != row:
            raise ValueError(f"qid {qid} occurs twice in the {what} with different content (row {number})")
        if by_qid[qid] is not row:
            repeated.append(qid)
    return by_qid, tuple(repeated)


def _array(row: Mapping, key: str, *width: int) -> np.ndarray:
    """Read a field as (N, width) or (N,) float64; of length 0 if it is empty or absent."""
    value = row.get(key)
    if value is None or value == []:
        return np.zeros((0, *width))
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(())  # of no valid shape
    if array.ndim != 1 + len(width) or array.shape[1:] != width:
        expected = f"rows of {width[0]} numbers" if width else "numbers"
        raise ValueError(f"qid {row['qid']}: {key!r} is {str(value)[:80]}, expected a list of {expected}")
    return array


def check_rows(rows: Iterable[Mapping], origins: Iterable[str]) -> None:
    """Look whether rows of a submission, or annotations, have the form that `evaluate_qvhighlights` reads.

    Args:
        rows: of either.
        origins: where each stands, for messages.

    Raises:
        ValueError: one has another form; names where it stands.
    """
    for row, origin in zip(rows, origins, strict=True):
        try:
            if row.get("qid") is None:
                raise ValueError(f"there is no 'qid', its fields: {', '.join(row)}")
            _array(row, "pred_relevant_windows", 3)
            _array(row, "pred_saliency_scores")
            _array(row, "relevant_windows", 2)
            if row.get("saliency_scores") is not None and row.get("relevant_clip_ids") is not None:
                _saliency(row)
        except ValueError as error:
            raise ValueError(f"{origin}: {error}") from error


def _compare(predictions: Sequence[Mapping], truths: Sequence[Mapping]) -> _Moments:
    """Compute the overlaps of all queries, padded to the longest."""
    preds = [_array(p, "pred_relevant_windows", 3)[:MAX_WINDOWS] for p in predictions]
    windows = [_array(t, "relevant_windows", 2) for t in truths]
    num_true = max(1, *(len(w) for w in windows))
    iou = np.full((len(preds), MAX_WINDOWS, num_true), -1.0)
    score = np.full((len(preds), MAX_WINDOWS), -np.inf)
    length_s = np.full((len(preds), num_true), np.nan)
    for query, (pred, window) in enumerate(zip(preds, windows, strict=True)):
        overlap = np.nan_to_num(spans.iou(pred[:, :2], window), nan=0.0)
        iou[query, : len(pred), : len(window)] = overlap
        score[query, : len(pred)] = pred[:, 2]
        length_s[query, : len(window)] = window[:, 1] - window[:, 0]
    exists = np.arange(MAX_WINDOWS) < np.array([len(p) for p in preds])[:, None]
    return _Moments(
        iou=iou, by_score=np.argsort(-score, axis=1, kind="stable"), exists=exists, length_s=length_s
    )


def _match(iou: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Tell which predictions are hits: each takes the best true window that no better prediction took.

    Args:
        iou: (Q, P, G), predictions by falling score.
        thresholds: (T,).

    Returns:
        (Q, P, T) bool.
    """
    # Moment-DETR matches as ActivityNet's detection does, at each threshold by itself: all queries go side by
    # side here, in the order in which the predictions of one query have to be looked at.
    num_queries, num_preds, num_true = iou.shape
    # 1. A prediction tries the true windows from the best overlap down; of equal ones the last first.
    best_first = np.argsort(iou, axis=2, kind="stable")[:, :, ::-1]  # (Q, P, G)
    taken = np.zeros((num_queries, num_true, len(thresholds)), dtype=bool)
    hits = np.zeros((num_queries, num_preds, len(thresholds)), dtype=bool)
    queries = np.arange(num_queries)
    for pred in range(num_preds):
        for rank in range(num_true):
            true = best_first[:, pred, rank]
            # 2. An overlap equal to the threshold is one (K505).
            overlaps = iou[queries, pred, true][:, None] >= thresholds
            # 3. It takes the first window that is free, and only one; so a second prediction of the same
            #    window is a miss, unless there is another window for it.
            takes = overlaps & ~taken[queries, true] & ~hits[:, pred]
            taken[queries, true] |= takes
            hits[:, pred] |= takes
    return hits


def _average_precision(moments: _Moments, inside: np.ndarray) -> np.ndarray:
    """Compute the interpolated average precision of each query.

    Args:
        moments: predicted against true windows.
        inside: (Q, G) bool, the true windows that count.

    Returns:
        (Q, T); 0 without a true window.
    """
    # 1. By falling score, whatever the order of the list (K507); windows out of range match nothing.
    iou = np.where(inside[:, None], moments.iou, -1)
    iou = np.take_along_axis(iou, moments.by_score[:, :, None], axis=1)
    hits = _match(iou, AP_THRESHOLDS)
    # 2. Precision after each prediction, and from it the best that a larger recall still has.
    rank = np.maximum(moments.exists.cumsum(axis=1), 1)[:, :, None]  # missing ones sort last
    precision = hits.cumsum(axis=1) / rank  # (Q, P, T)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # 3. Each hit is a step of recall of the same size, one true window.
    return (precision * hits).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)[:, None]


def _by_threshold(thresholds: np.ndarray, values: np.ndarray) -> dict[str, float]:
    return {str(round(float(t), 2)): _percent(v) for t, v in zip(thresholds, values, strict=True)}


def _moment_scores(moments: _Moments, inside: np.ndarray) -> dict:
    """Compute MR-mIoU, MR-mAP, MR-R1 and MR-R5.

    Args:
        moments: predicted against true windows.
        inside: (Q, G) bool, the true windows that count.
    """
    best = np.where(inside[:, None], moments.iou, 0).max(axis=2).clip(min=0)  # (Q, P)
    average_precision = _average_precision(moments, inside).mean(axis=0)  # (T,)
    recall = {
        f"MR-R{k}": (best[:, :k, None] >= RECALL_THRESHOLDS).any(axis=1).mean(axis=0)  # (T,)
        for k in (1, 5)
    }
    return {
        "MR-mIoU": _percent(best[:, 0].mean()),
        "MR-mAP": {
            **_by_threshold(AP_THRESHOLDS, average_precision),
            "average": _percent(average_precision.mean()),
        },
        **{name: _by_threshold(RECALL_THRESHOLDS, values) for name, values in recall.items()},
    }


def _select(moments: _Moments, queries: np.ndarray) -> _Moments:
    return _Moments(**{name: values[queries] for name, values in vars(moments).items()})


def _retrieval(predictions: Sequence[Mapping], truths: Sequence[Mapping]) -> tuple[dict, tuple[str, ...]]:
    """Score moment retrieval in each range of window lengths; name the ranges without a true window."""
    moments = _compare(predictions, truths)
    scores, empty = {}, []
    for name, (low, high) in RANGES_S.items():
        inside = (moments.length_s > low) & (moments.length_s <= high)  # (Q, G)
        queries = np.ones(len(inside), bool) if name == "full" else inside.any(axis=1)
        if queries.any():
            scores[name] = _moment_scores(_select(moments, queries), inside[queries])
        else:
            scores[name] = scores["full"]
            empty.append(name)
    return scores, tuple(empty)


def _saliency(truth: Mapping) -> np.ndarray:
    """Read the annotators' saliency of every clip, (C, 3); 0 outside the relevant clips."""
    annotated = _array(truth, "saliency_scores", NUM_ANNOTATORS)
    clips = _array(truth, "relevant_clip_ids").astype(int)
    duration = truth.get("duration")
    if type(duration) not in (int, float) or not 0 <= duration <= LONGEST_S:
        raise ValueError(f"qid {truth['qid']}: 'duration' is {str(duration)[:80]}, expected seconds")
    saliency = np.zeros((int(truth["duration"] / CLIP_S), NUM_ANNOTATORS))
    if len(clips) != len(annotated) or (len(clips) and not 0 <= clips.min() <= clips.max() < len(saliency)):
        raise ValueError(
            f"qid {truth['qid']}: 'relevant_clip_ids' and 'saliency_scores' must agree and lie within the "
            f"{len(saliency)} clips of {truth['duration']} s; there are {len(clips)} and {len(annotated)}"
        )
    saliency[clips] = annotated
    return saliency


def _clip_average_precision(score: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Average the interpolated precision over the recall steps.

    Args:
        score: (C,).
        relevant: (C, A) bool.

    Returns:
        (A,); 0 where no clip is relevant.
    """
    # As scikit-learn's precision_recall_curve, which the official code calls: clips of equal score count
    # together, so there is one point per distinct score.
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    hits = relevant[order].cumsum(axis=0)[last_of_tie]  # (distinct scores, A)
    precision = hits / (np.flatnonzero(last_of_tie) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    # The mean over the points at which recall rises, however far, where the area would weigh by how far.
    steps = np.diff(hits, axis=0, prepend=0) > 0
    return (precision * steps).sum(axis=0) / np.maximum(steps.sum(axis=0), 1)


def _highlight(prediction: Mapping, truth: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Compute one query's AP and HIT@1 for each level, (3,) each; 0 without predicted saliency."""
    relevant = _saliency(truth)[:, None, :] >= np.array([*LEVELS.values()])[:, None]  # (C, levels, 3)
    score = _array(prediction, "pred_saliency_scores")
    if len(score) == 0 or len(relevant) == 0:
        return np.zeros(len(LEVELS)), np.zeros(len(LEVELS))
    top = score.argmax()
    hit = relevant[top].any(axis=1) if top < len(relevant) else np.zeros(len(LEVELS))
    score = np.pad(score[: len(relevant)], (0, max(0, len(relevant) - len(score))))
    precision = _clip_average_precision(score, relevant.reshape(len(relevant), -1))
    return precision.reshape(len(LEVELS), NUM_ANNOTATORS).mean(axis=1), hit


def _highlights(predictions: Sequence[Mapping], truths: Sequence[Mapping]) -> dict:
    """Score highlight detection at each level of saliency."""
    pairs = [_highlight(p, t) for p, t in zip(predictions, truths, strict=True)]
    precision, hits = (np.mean(values, axis=0) for values in zip(*pairs, strict=True))
    return {
        f"HL-min-{level}": {"HL-mAP": _percent(precision[i]), "HL-Hit1": _percent(hits[i])}
        for i, level in enumerate(LEVELS)
    }


def _brief(scores: Mapping[str, dict]) -> dict[str, float]:
    """Pick the headline numbers, named as on the leaderboard."""
    brief = {}
    if "full" in scores:
        full = scores["full"]
        brief |= {f"MR-full-R{k}@{t}": full[f"MR-R{k}"][t] for k in (1, 5) for t in ("0.3", "0.5", "0.7")}
        brief["MR-full-mAP"] = full["MR-mAP"]["average"]
        brief |= {f"MR-full-mAP@{t}": full["MR-mAP"][t] for t in ("0.5", "0.75")}
        brief["MR-full-mIoU"] = full["MR-mIoU"]
        for name in list(RANGES_S)[1:]:
            brief[f"MR-{name}-mAP"] = scores[name]["MR-mAP"]["average"]
            brief[f"MR-{name}-mIoU"] = scores[name]["MR-mIoU"]
    for level in LEVELS:
        for name, value in scores.get(f"HL-min-{level}", {}).items():
            brief[f"HL-min-{level}-{name.removeprefix('HL-')}"] = value
    return brief


def evaluate_qvhighlights(
    submission: Iterable[Mapping], annotations: Iterable[Mapping]
) -> QVHighlightsScores:
    """Score a submission.

    Args:
        submission: rows with `qid` and `pred_relevant_windows` [[start, end, score], ...] (s, at most
            10 are used) and/or `pred_saliency_scores` (one per clip of 2 s).
        annotations: rows with `qid`, `relevant_windows` [[start, end], ...], and for highlights
            `duration`, `relevant_clip_ids`, `saliency_scores` (three annotators per relevant clip).

    Returns:
        The scores; a query without prediction or without a true window scores 0.

    Raises:
        ValueError: a qid stands twice with different content, a row has another form, the two have no qid
            in common, or nothing is predicted.
    """
    predicted, repeated = _by_qid(submission, "submission")
    annotated, annotated_twice = _by_qid(annotations, "annotations")
    if not predicted.keys() & annotated.keys():
        raise ValueError(
            f"The {len(predicted)} predictions and {len(annotated)} annotations have no qid in common"
        )
    if not any("pred_relevant_windows" in p or "pred_saliency_scores" in p for p in predicted.values()):
        raise ValueError("The submission has neither 'pred_relevant_windows' nor 'pred_saliency_scores'")
    pairs = [(predicted.get(qid, {"qid": qid}), truth) for qid, truth in annotated.items()]
    scores, empty_ranges = {}, ()
    moments = _labelled(pairs, "pred_relevant_windows", "relevant_windows")
    if moments:
        scores, empty_ranges = _retrieval(*zip(*moments, strict=True))
    highlights = _labelled(pairs, "pred_saliency_scores", "relevant_clip_ids", "saliency_scores")
    if highlights:
        scores |= _highlights(*zip(*highlights, strict=True))
    unlabelled = sum(
        t.get("relevant_windows") is None and t.get("saliency_scores") is None for t in annotated.values()
    )
    return QVHighlightsScores(
        metrics={"brief": _brief(scores), **scores} if scores else {},
        queries=len(annotated) - unlabelled,
        unlabelled=unlabelled,
        missing=tuple(qid for qid in annotated if qid not in predicted),
        unknown=tuple(qid for qid in predicted if qid not in annotated),
        repeated=repeated,
        annotated_twice=annotated_twice,
        odd=dict(Counter(reason for truth in annotated.values() for reason in _oddities(truth))),
        empty_ranges=empty_ranges,
    )


def _oddities(truth: Mapping) -> list[str]:
    duration = truth.get("duration")
    windows = _array(truth, "relevant_windows", 2).tolist()
    return spans.what_is_odd(windows, duration if type(duration) in (int, float) else None)


def _labelled(pairs: Sequence[tuple[Mapping, Mapping]], predicted: str, *needed: str) -> list[tuple]:
    """Pick the pairs with all `needed` truths, if the submission predicts `predicted` at all."""
    if not any(predicted in prediction for prediction, _ in pairs):
        return []
    return [(p, t) for p, t in pairs if all(t.get(key) is not None for key in needed)]
