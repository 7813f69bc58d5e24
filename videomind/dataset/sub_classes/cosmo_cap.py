"""CosMo-Cap (captions with moments of HowTo-Interlink7M; Wang et al., arXiv 2401.00849): train.

A row: `{"vid": "aaaaaaaaaaa", "duration": 30, "query": "dog runs", "span": [2, 6]}`
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Grounding


class CosMoCap(Source):
    """Captions of moments in instructional videos."""

    names = {"cosmo_cap": Grounding}
    splits = {"train": "cosmo_cap/anno_cosmo_cap.jsonl"}
    video_root = "cosmo_cap/videos_3fps_480_noaudio"
    unit_s = 1.0

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        return self.moment(row["vid"], row["query"], [row["span"]], duration=row["duration"])
