"""QVHighlights (Lei et al., arXiv 2107.09609): train, valid, test (without labels).

A row: `{"vid": "s1", "qid": 7, "duration": 90, "query": "cut leek", "relevant_windows": [[3, 8]]}`
"""

from dataclasses import replace
from typing import Any

from videomind.dataset.base import DroppedRow, Source
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Grounding


class QVHighlights(Source):
    """Queries with one or more windows on a grid of 2 s; the test split has none."""

    names = {"qvhighlights": Grounding}
    splits = {
        "train": "qvhighlights/highlight_train_release.jsonl",
        "valid": "qvhighlights/highlight_val_release.jsonl",
        "test": "qvhighlights/highlight_test_release.jsonl",
    }
    eval_split = "valid"
    video_root = "qvhighlights/videos_3fps_480_noaudio"
    unit_s = 2.0
    scorer = "qvhighlights"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        vid, spans = row["vid"], row.get("relevant_windows")
        names = {"vid": vid, "qid": row["qid"]}  # what a submission knows a query by
        return self.moment(vid, row["query"], spans, duration=row["duration"], meta=names)


class QVHighlightsSingle(QVHighlights):
    """The queries of at most one window."""

    names = {"qvhighlights_single": Grounding}
    scorer = "default"
    splits = {"train": QVHighlights.splits["train"]}

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        if len(row.get("relevant_windows") or ()) > 1:
            raise DroppedRow("more than one window")
        return replace(super().parse(row, split), meta=None)
