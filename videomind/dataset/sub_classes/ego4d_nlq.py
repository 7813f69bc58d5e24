"""Ego4D Natural Language Queries (Grauman et al., arXiv 2110.07058): train, valid.

A row: `{"vid": "s1", "duration": 90, "query": "where is the leek", "relevant_windows": [[3, 8]]}`
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Grounding


class Ego4DNLQ(Source):
    """Questions about egocentric videos, one moment each."""

    names = {"ego4d_nlq": Grounding}
    splits = {"train": "ego4d_nlq/nlq_train.jsonl", "valid": "ego4d_nlq/nlq_val.jsonl"}
    video_root = "ego4d/v2/videos_3fps_480_noaudio"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        (span,) = row["relevant_windows"]
        return self.moment(row["vid"], row["query"], [span], duration=row["duration"])
