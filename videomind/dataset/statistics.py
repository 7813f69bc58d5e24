"""What a training set holds: counts, what was dropped and why, lengths and words, as text."""

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from videomind.dataset.parts import Part
from videomind.dataset.table import NUM_WORDS, AnnotationTable

BAR = 30  # characters of the longest bar


def statistics(parts: Sequence[Part]) -> str:
    """Tables of the parts, of what was dropped, and histograms of all that is kept."""
    tables = [part.annotations for part in parts if isinstance(part.annotations, AnnotationTable)]
    spans = _joined(tables, "span").reshape(-1, 2)
    blocks = [
        _counts(parts),
        _reasons("dropped, and why", [part.report.dropped for part in parts], parts),
        _reasons("kept, although", [part.report.noted for part in parts], parts),
        _judgements(parts),
        histogram("video length (s)", _joined(tables, "duration")),
        histogram("moment length (s)", spans[:, 1] - spans[:, 0]),
        histogram("words", _joined(tables, NUM_WORDS)),
    ]
    return "\n\n".join(block for block in blocks if block)


def _joined(tables: Sequence[AnnotationTable], column: str) -> np.ndarray:
    return np.concatenate([table.numbers(column) for table in tables]) if tables else np.zeros(0)


def _counts(parts: Sequence[Part]) -> str:
    total = max(sum(len(part) for part in parts), 1)
    rows = [
        [
            part.entry.name,
            part.split,
            part.view.data_type,
            part.report.num_rows,
            len(part.annotations) + part.report.dropped.total(),
            len(part.annotations),
            f"{part.entry.weight:g}",
            f"{len(part) / total:.1%}",
        ]
        for part in parts
    ]
    headers = ["data set", "split", "type", "rows", "annotations", "kept", "weight", "share"]
    return tabulate(rows, headers=headers)


def _reasons(title: str, counters: Sequence[dict[str, int]], parts: Sequence[Part]) -> str:
    rows = [
        [part.entry.name, reason, count]
        for part, counter in zip(parts, counters, strict=True)
        for reason, count in sorted(counter.items())
    ]
    return tabulate(rows, headers=["data set", title, "annotations"]) if rows else ""


def _judgements(parts: Sequence[Part]) -> str:
    rows = []
    for part in parts:
        if part.view.role == "verifier" and isinstance(part.annotations, AnnotationTable):
            positive = part.annotations.numbers("positive")
            rows.append([part.entry.name, int(positive.sum()), int((~positive.astype(bool)).sum())])
    return tabulate(rows, headers=["data set", "right candidates", "wrong candidates"]) if rows else ""


def histogram(title: str, values: np.ndarray, num_bins: int = 10) -> str:
    """A text histogram, or '' without values. Args: values (N,); num_bins of equal width."""
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
