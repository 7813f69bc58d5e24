"""QVHighlights (Lei et al., arXiv 2107.09609): train, valid, test (without labels).

A row: `{"vid": "s1", "qid": 7, "duration": 90, "query": "cut leek", "relevant_windows": [[3, 8]]}`
"""

from dataclasses import replace
from typing import Any

from videomind.dataset.base import DroppedRow, Source
from videomind.dataset.readers import clean_query
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Grounding

_FILES = {
    "train": "qvhighlights/highlight_train_release.jsonl",
    "valid": "qvhighlights/highlight_val_release.jsonl",
    "test": "qvhighlights/highlight_test_release.jsonl",
}


class QVHighlights(Source):
    """Queries with one or more windows on a grid of 2 s; the test split has none."""

    names = {"qvhighlights": Grounding}
    splits = _FILES
    eval_split = "valid"
    video_root = "qvhighlights/videos_3fps_480_noaudio"
    unit_s = 2.0

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        """See Source."""
        return Annotation(
            source=self.name,
            data_type="grounding",
            video_path=self.video_path(row["vid"]),
            duration=row["duration"],
            query=clean_query(row["query"]),
            span=row.get("relevant_windows"),
            vid=row["vid"],
            qid=row["qid"],
        )


class QVHighlightsSingle(QVHighlights):
    """The queries of at most one window."""

    names = {"qvhighlights_single": Grounding}
    splits = {"train": _FILES["train"]}
    eval_split = "train"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        """See Source."""
        if len(row.get("relevant_windows") or ()) > 1:
            raise DroppedRow("more than one window")
        return replace(super().parse(row, split), vid=None, qid=None)
