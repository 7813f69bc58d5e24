"""What a training set holds: counts, what was left out and why, lengths and words, as text."""

import os
from collections.abc import Sequence
from functools import cache

import numpy as np
from tabulate import tabulate

from videomind.dataset.parts import Part
from videomind.dataset.schema import Annotation
from videomind.dataset.table import NUM_WORDS, AnnotationTable

BAR = 30  # characters of the longest bar


def statistics(parts: Sequence[Part], *, look_for_videos: bool = False) -> str:
    """Make tables of the parts and of what was left out, and histograms of all that is kept.

    Args:
        parts: of a training set, or benchmarks.
        look_for_videos: whether to count the videos, and those that are not there.
    """
    spans = _joined(parts, "span").reshape(-1, 2)
    reports = [part.report for part in parts]
    blocks = [
        _counts(parts, look_for_videos),
        _reasons("rows left out, and why", "rows", [report.skipped for report in reports], parts),
        _reasons("annotations left out, and why", "annotations", [r.dropped for r in reports], parts),
        _reasons("kept, although", "annotations", [report.noted for report in reports], parts),
        "\n".join(f"{path} holds no row" for report in reports for path in report.empty),
        _judgements(parts),
        histogram("video length (s)", _joined(parts, "duration")),
        histogram("moment length (s)", spans[:, 1] - spans[:, 0]),
        histogram("words", _joined(parts, NUM_WORDS)),
    ]
    return "\n\n".join(block for block in blocks if block)


def _joined(parts: Sequence[Part], column: str) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(_numbers(part, column) for part in parts)])


def _numbers(part: Part, column: str) -> np.ndarray:
    """Collect the values of a column that are set, flattened."""
    if isinstance(part.annotations, AnnotationTable):
        return part.annotations.numbers(column)
    if column == NUM_WORDS:
        asked = (anno for anno in part.annotations if part.view.problem(anno) is None)
        return np.array([part.view.num_words(anno) for anno in asked], dtype=float)
    values = (getattr(anno, column) for anno in part.annotations)
    return np.concatenate([np.zeros(0), *(np.ravel(value) for value in values if value is not None)])


def _counts(parts: Sequence[Part], look_for_videos: bool) -> str:
    total = max(sum(len(part) for part in parts), 1)
    headers = ["data set", "split", "type", "rows", "left out", "annotations", "kept", "weight", "share"]
    headers += ["videos", "missing"] if look_for_videos else []
    rows = []
    for part in parts:
        kept, dropped = len(part.annotations), part.report.dropped.total()
        row = [part.entry.name, part.split, part.view.data_type]
        row += [part.report.num_rows, part.report.skipped.total(), kept + dropped, kept]
        row += [f"{part.entry.weight:g}", f"{len(part) / total:.1%}"]
        rows.append(row + (list(count_videos(part.annotations)) if look_for_videos else []))
    return tabulate(rows, headers=headers)


def count_videos(annotations: Sequence[Annotation]) -> tuple[int, int]:
    """Count the videos of some annotations, and those of them that are not there.

    A list of images is one video; it is missing when one of its images is.
    """
    if isinstance(annotations, AnnotationTable):
        videos = annotations.videos()
    else:
        paths = (anno.video_path for anno in annotations)
        videos = {tuple(path) if isinstance(path, list) else (path,) for path in paths if path is not None}

    @cache
    def names(folder: str) -> frozenset[str]:  # one look at a folder, not one at each file
        return frozenset(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else frozenset()

    def is_missing(video: tuple[str, ...]) -> bool:
        return any(os.path.basename(path) not in names(os.path.dirname(path)) for path in video)

    return len(videos), sum(map(is_missing, videos))


def _reasons(title: str, what: str, counters: Sequence[dict[str, int]], parts: Sequence[Part]) -> str:
    rows = [
        [part.entry.name, reason, count]
        for part, counter in zip(parts, counters, strict=True)
        for reason, count in sorted(counter.items())
    ]
    return tabulate(rows, headers=["data set", title, what]) if rows else ""


def _judgements(parts: Sequence[Part]) -> str:
    rows = []
    for part in parts:
        if part.view.role == "verifier":
            positive = _numbers(part, "positive").astype(bool)
            rows.append([part.entry.name, int(positive.sum()), int((~positive).sum())])
    return tabulate(rows, headers=["data set", "right candidates", "wrong candidates"]) if rows else ""


def histogram(title: str, values: np.ndarray, num_bins: int = 10) -> str:
    """Draw a text histogram, or '' without values.

    Args:
        title: what the values are.
        values: (N,).
        num_bins: of equal width.
    """
    if not len(values):
        return ""
    low, high = float(values.min()), float(values.max())
    counts, edges = np.histogram(values, bins=num_bins, range=(low, high if high > low else low + 1))
    rows = [
        [f"{edges[i]:.1f} - {edges[i + 1]:.1f}", int(count), "#" * round(BAR * count / counts.max())]
        for i, count in enumerate(counts)
    ]
    head = f"{title}: mean {values.mean():.2f}, shortest {low:.2f}, longest {high:.2f}"
    return f"{head}\n" + tabulate(rows, tablefmt="plain")
