"""MLVU (Zhou et al., arXiv 2406.04264): test, the multiple-choice tasks of its development set.

A row: `{"video": "a.mp4", "question": "What?", "candidates": ["x", "y"], "answer": "y",
"question_type": "plotQA"}`
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation, as_list, as_text
from videomind.dataset.views import Answering
from videomind.roles import nearest

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
    only_evaluates = True
    splits = {"test": tuple(f"mlvu/json/{folder}.json" for folder in _FOLDERS.values())}
    video_root = "mlvu/video"
    video_name = "{vid}"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        task = as_text(row["question_type"])
        if task not in _FOLDERS:
            raise ValueError(f"the question_type is {task!r}. {nearest(task, _FOLDERS)}")
        vid = f"{_FOLDERS[task]}/{as_text(row['video'])}"
        if not row.get("question") and not row.get("candidates"):  # one of topic_reasoning
            return self.asked(vid, "", task=task)
        return self.asked(vid, row["question"], as_list(row["candidates"]), row["answer"], task=task)
