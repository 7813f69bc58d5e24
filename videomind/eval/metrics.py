"""Scores of one run: prediction records in, numbers out. No files, no printing.

Grounding and multiple-choice answers are scored per task and over all records. Two modes: the default
one, and CG-Bench's (arXiv 2412.12075), where all clues of a question count together. Overlaps are
float32, as in the published figures: CG-Bench's union IoU can divide by almost nothing, where the
precision decides.

Shapes: R records, K predictions looked at, P predictions, W true windows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from videomind import spans
from videomind.sums import plain_mean


@dataclass(frozen=True, kw_only=True)
class Mode:
    """What is reported. Attributes: name; ranks, the k of R@k; thresholds of overlap."""

    name: str
    ranks: tuple[int, ...]
    thresholds: tuple[float, ...]


DEFAULT = Mode(name="default", ranks=(1, 3, 5), thresholds=(0.3, 0.5, 0.7))
CGBENCH = Mode(name="cgbench", ranks=(1,), thresholds=(0.1, 0.2, 0.3, 0.4, 0.5))
GROUNDED_ANSWER_THRESHOLD = 0.5  # Acc@GQA of NExT-GQA, arXiv 2309.01327
NO_TASK = "unknown"
# Two records that agree in all of these are the same annotation, predicted twice.
IDENTITY = ("source", "video_path", "vid", "qid", "uid", "task", "query", "question", "options", "span")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One row of a table.

    Attributes: samples; failed, groundings without a `<|reg|>` or unparsable answers; values, the
    columns in percent; raised and lowered, how often the verifier changed the top-1 overlap.
    """

    samples: int
    failed: int
    values: dict[str, float]
    raised: int = 0
    lowered: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """Scores by task name (sorted; a record with several tasks counts in each) and over all records."""

    tasks: dict[str, Scores]
    overall: Scores


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All scores of a run, and what a reader must know to trust them.

    Attributes: mode, its name; iou, iop (None in CG-Bench mode), qa: the tables. The counts: records;
    unlabelled, without any ground truth; without_pred and without_response, labelled but not
    predicted, which score 0; repeated, equal annotations beyond the first, which count again.
    """

    mode: str
    iou: Table
    iop: Table | None
    qa: Table
    records: int
    unlabelled: int
    without_pred: int
    without_response: int
    repeated: int


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """One overlap measure of every record.

    Attributes: top (R, K), of the k-th prediction with its best true window, 0 where there is none;
    before (R,), of the first prediction before the verifier, nan where it did not run.
    """

    top: Tensor
    before: Tensor


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What every record scored, as columns: (R,) bool each, and the overlaps (iop None: CG-Bench)."""

    grounded: Tensor
    failed: Tensor
    iou: Overlap
    iop: Overlap | None
    answered: Tensor
    correct: Tensor
    unparsable: Tensor


def check_ans(response: str | None, *, num_options: int, ans: str) -> bool | None:
    """Whether a multiple-choice response is right.

    Only the first letter of the text before the first space counts, without brackets and dots: "(B) two"
    and "best" are both B. Scores stay comparable with published ones this way.

    Returns: None if that is not the letter of an option.
    """
    token = (response or "").lower().split(" ")[0].translate(str.maketrans("", "", "()."))
    letters = [chr(ord("a") + i) for i in range(num_options)]
    return token[0] == ans.lower() if token and token[0] in letters else None


def compute_iou(pred: Tensor, truth: Tensor) -> Tensor:
    """Pairwise IoU. Args: pred (P, 2), truth (W, 2), s. Returns: (P, W), 0 where both have no length."""
    return spans.iou(pred, truth).nan_to_num(nan=0.0)


def compute_iop(pred: Tensor, truth: Tensor) -> Tensor:
    """Pairwise intersection over prediction. Args as compute_iou; 0 where a prediction has no length."""
    return spans.iop(pred, truth).nan_to_num(nan=0.0)


def union_iou(pred: Tensor, truth: Tensor, *, conf: Tensor | None = None, conf_thr: float = -1.0) -> float:
    """IoU of the first prediction, and all confident ones, with all true windows together (CG-Bench).

    Intersections and lengths are summed pair by pair, as in the published figures: windows that overlap
    each other count twice, so that the value may exceed 1, or be negative where the "union" is.

    Args: pred (P, 2), truth (W, 2), s; conf (P,), confidences; conf_thr: predictions with a confidence
        above it join the first one; 0 or less: only the first.
    """
    if not len(pred) or not len(truth):
        return 0.0
    keep = torch.zeros(len(pred), dtype=torch.bool)
    if conf_thr > 0:
        keep = conf > conf_thr
    keep[0] = True
    pred = pred[keep]
    inter = spans.intersection(pred, truth).sum()
    union = spans.length(pred).sum() + spans.length(truth).sum() - inter
    return (inter / union).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).item()


def _windows(record: Mapping, key: str, origin: str, limit: int | None = None) -> Tensor:
    """The first `limit` spans of a field as (N, 2); (0, 2) if it is empty, None or absent."""
    value = record.get(key) or []
    try:
        windows = torch.tensor(list(value)[:limit], dtype=torch.float32)
    except (TypeError, ValueError):
        windows = torch.zeros(1)  # of no valid shape
    if windows.numel() == 0:
        return torch.zeros(0, 2)
    if windows.ndim != 2 or windows.shape[1] != 2:
        raise ValueError(f"{origin}: {key!r} is {str(value)[:80]}, expected [[start, end], ...] in seconds")
    return windows


def _confidences(record: Mapping, key: str, origin: str, count: int) -> Tensor:
    """The confidences of `count` predictions, (count,)."""
    try:
        conf = torch.tensor(record.get(key) or [], dtype=torch.float32)
    except (TypeError, ValueError):
        conf = torch.zeros(count, 0)  # of no valid shape
    if conf.shape != (count,):
        raise ValueError(f"{origin}: {key!r} is not a list of {count} numbers, one per prediction")
    return conf


def _empty_overlap(num_records: int, num_ranks: int) -> Overlap:
    return Overlap(top=torch.zeros(num_records, num_ranks), before=torch.full((num_records,), torch.nan))


def _mark_overlaps(record: Mapping, row: int, origin: str, iou: Overlap, iop: Overlap) -> None:
    """Write one record's overlaps into row `row` of both measures (default mode)."""
    truth = _windows(record, "span", origin)
    pred = _windows(record, "pred", origin, iou.top.shape[1])
    before = _windows(record, "pred_ori", origin, 1)
    for measure, compute in ((iou, compute_iou), (iop, compute_iop)):
        if len(truth):
            best = compute(torch.cat([pred, before]), truth).amax(dim=1)  # (P + 1,) or (P,)
        else:
            best = torch.zeros(len(pred) + len(before))
        measure.top[row, : len(pred)] = best[: len(pred)]
        if len(before):
            measure.before[row] = best[-1]


def _mark_union(record: Mapping, row: int, origin: str, iou: Overlap, conf_thr: float) -> None:
    """Write one record's union IoU into row `row` (CG-Bench mode)."""
    truth = _windows(record, "span", origin)
    limit = None if conf_thr > 0 else 1
    values = []
    for key in ("pred", "pred_ori"):
        pred = _windows(record, key, origin, limit)
        suffix = key.removeprefix("pred")
        conf = _confidences(record, "conf" + suffix, origin, len(pred)) if conf_thr > 0 else None
        values.append(union_iou(pred, truth, conf=conf, conf_thr=conf_thr))
    iou.top[row, 0] = values[0]
    if record.get("pred_ori"):
        iou.before[row] = values[1]


def _judge(record: Mapping, origin: str) -> bool | None:
    """check_ans for a record."""
    for key, kind, expected in (
        ("options", list, "a list of options"),
        ("ans", str, "the right option's letter"),
        ("response", str | None, "text"),
    ):
        if not isinstance(record.get(key), kind):
            raise ValueError(f"{origin}: {key!r} is {str(record.get(key))[:80]}, expected {expected}")
    return check_ans(record.get("response"), num_options=len(record["options"]), ans=record["ans"])


def _has(record: Mapping, *keys: str) -> bool:
    return all(record.get(key) is not None for key in keys)


def _mark(records: Sequence[Mapping], mode: Mode, conf_thr: float, origins: Sequence[str]) -> Marks:
    """Score every record by itself."""
    # A stage scores only if the run had it: an answer-only run is not a run of failed groundings.
    ran_grounding = any(_has(r, "pred") for r in records)
    ran_answering = any(_has(r, "response") for r in records)
    grounded = torch.tensor([ran_grounding and _has(r, "span") for r in records])
    answered = torch.tensor([ran_answering and _has(r, "options", "ans") for r in records])
    iou, iop = (_empty_overlap(len(records), max(mode.ranks)) for _ in range(2))
    for row in grounded.nonzero().flatten().tolist():
        if mode is CGBENCH:
            _mark_union(records[row], row, origins[row], iou, conf_thr)
        else:
            _mark_overlaps(records[row], row, origins[row], iou, iop)
    verdicts = [_judge(r, o) if a else None for r, o, a in zip(records, origins, answered, strict=True)]
    return Marks(
        grounded=grounded,
        failed=grounded & torch.tensor([r.get("grounder_success") is False for r in records]),
        iou=iou,
        iop=None if mode is CGBENCH else iop,
        answered=answered,
        correct=torch.tensor([verdict is True for verdict in verdicts]),
        unparsable=answered & torch.tensor([verdict is None for verdict in verdicts]),
    )


def _percent(values: Tensor) -> float:
    return 100 * values.double().mean().item() if len(values) else 0.0


def _grounding_scores(rows: Tensor, *, marks: Marks, overlap: Overlap, mode: Mode, mean_name: str) -> Scores:
    """A row of a grounding table. Args: rows (R,) bool, the records that belong to it."""
    rows = rows & marks.grounded
    top, before = overlap.top[rows], overlap.before[rows]
    values = {
        f"R{k}@{threshold}": _percent((top[:, :k] >= threshold).any(dim=1))
        for k in mode.ranks
        for threshold in mode.thresholds
    }
    recalls = list(values.values())
    values[mean_name] = _percent(top[:, 0])
    if mode is CGBENCH:
        values["rec.@IoU"] = plain_mean(recalls)
    return Scores(
        samples=len(top),
        failed=int(marks.failed[rows].sum()),
        values=values,
        raised=int((top[:, 0] > before).sum()),
        lowered=int((top[:, 0] < before).sum()),
    )


def _answer_scores(rows: Tensor, *, marks: Marks, mode: Mode) -> Scores:
    """A row of the answer table. Args: rows (R,) bool, the records that belong to it."""
    rows = rows & marks.answered
    correct = marks.correct[rows]
    iou = marks.iou.top[rows, 0]
    if mode is CGBENCH:
        hits = [_percent(correct & (iou >= threshold)) for threshold in mode.thresholds]
        values = {"long-acc.": _percent(correct), "acc.@IoU": plain_mean(hits)}
    else:
        threshold = GROUNDED_ANSWER_THRESHOLD
        values = {
            "Acc": _percent(correct),
            f"Acc (IoU >= {threshold})": _percent(correct & (iou >= threshold)),
            f"Acc (IoP >= {threshold})": _percent(correct & (marks.iop.top[rows, 0] >= threshold)),
        }
    return Scores(samples=len(correct), failed=int(marks.unparsable[rows].sum()), values=values)


def tasks_of(record: Mapping) -> tuple[str, ...]:
    """The names of all tasks that a record counts in."""
    task = record.get("task") or NO_TASK
    return tuple(str(t) for t in task) if isinstance(task, list) else (str(task),)


def _table(records: Sequence[Mapping], score: Callable[[Tensor], Scores]) -> Table:
    """Apply `score` to the rows, (R,) bool, of each task and to all of them."""
    members: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        for task in tasks_of(record):
            members.setdefault(task, []).append(row)
    tasks = {}
    for task in sorted(members):
        rows = torch.zeros(len(records), dtype=torch.bool)
        rows[members[task]] = True
        tasks[task] = score(rows)
    return Table(tasks=tasks, overall=score(torch.ones(len(records), dtype=torch.bool)))


def _count_repeated(records: Iterable[Mapping]) -> int:
    keys = [repr([record.get(field) for field in IDENTITY]) for record in records]
    return len(keys) - len(set(keys))


def _count_without(records: Sequence[Mapping], key: str, rows: Tensor) -> int:
    return sum(not _has(records[row], key) for row in rows.nonzero().flatten().tolist())


def _count_unlabelled(records: Sequence[Mapping], origins: Sequence[str]) -> int:
    """How many records have no ground truth: all or none. Raises ValueError for a mixture."""
    labelled = [_has(r, "span") or _has(r, "options", "ans") for r in records]
    if any(labelled) and not all(labelled):
        origin = origins[labelled.index(False)]
        raise ValueError(
            f"{origin}: a record without ground truth ('span', or 'options' and 'ans') among records "
            f"with it; {labelled.count(False)} of {len(labelled)} are like this"
        )
    return labelled.count(False)


def evaluate(
    records: Sequence[Mapping],
    *,
    mode: Mode = DEFAULT,
    conf_thr: float = -1.0,
    origins: Sequence[str] | None = None,
) -> Evaluation:
    """Score a run.

    A record's `pred` [[start, end], ...] (s, best first) is compared with its `span`, its `response`
    with `ans`. A labelled record without prediction scores 0, so does one whose `span` is empty.

    Args: records, one per annotation; mode; conf_thr, see union_iou (CG-Bench mode only); origins,
        where each record came from, for messages.
    Raises: ValueError for no record, a malformed one, or one without ground truth among labelled ones.
    """
    if not records:
        raise ValueError("There is no prediction record to evaluate")
    if not any(_has(r, "pred") or _has(r, "response") for r in records):
        raise ValueError(
            "No record holds a prediction: neither 'pred' nor 'response' (are these annotations?)"
        )
    origins = origins or [f"record {i}" for i in range(len(records))]
    unlabelled = _count_unlabelled(records, origins)
    marks = _mark(records, mode, conf_thr, origins)
    grounding = partial(_grounding_scores, marks=marks, mode=mode)
    return Evaluation(
        mode=mode.name,
        iou=_table(records, partial(grounding, overlap=marks.iou, mean_name="mIoU")),
        iop=marks.iop and _table(records, partial(grounding, overlap=marks.iop, mean_name="mIoP")),
        qa=_table(records, partial(_answer_scores, marks=marks, mode=mode)),
        records=len(records),
        unlabelled=unlabelled,
        without_pred=_count_without(records, "pred", marks.grounded),
        without_response=_count_without(records, "response", marks.answered),
        repeated=_count_repeated(records),
    )


def grounding_metrics(records: Sequence[Mapping]) -> dict[str, float]:
    """R1@{0.3, 0.5, 0.7} and mIoU in percent; with several true windows the best one counts.

    Args: records with `pred` (best first) and `span`, both [[start, end], ...] in s.
    """
    values = evaluate(records).iou.overall.values
    return {name: values[name] for name in ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")}
