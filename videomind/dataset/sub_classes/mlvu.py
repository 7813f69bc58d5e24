"""MLVU (Zhou et al., arXiv 2406.04264): test, the multiple-choice tasks of its development set.

A row: `{"video": "a.mp4", "question": "What?", "candidates": ["x", "y"], "answer": "y",
"question_type": "plotQA"}`
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Answering

_FOLDERS = {
    "plotQA": "1_plotQA",
    "findNeedle": "2_needle",
    "ego": "3_ego",
    "count": "4_count",
    "order": "5_order",
    "anomaly_reco": "6_anomaly_reco",
    "topic_reasoning": "7_topic_reasoning",
}


class MLVU(Source):
    """Seven tasks on long videos."""

    names = {"mlvu": Answering}
    splits = {"test": tuple(f"mlvu/json/{folder}.json" for folder in _FOLDERS.values())}
    video_root = "mlvu/video"
    video_name = "{vid}"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        """See Source."""
        task = row["question_type"]
        vid = f"{_FOLDERS[task]}/{row['video']}"
        return self.asked(vid, row["question"], row["candidates"], row["answer"], task=task)
