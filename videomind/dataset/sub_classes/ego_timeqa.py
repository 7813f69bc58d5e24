"""Ego-TimeQA (Di and Xie, arXiv 2312.06505): train.

A row: `{"video_id": "v1", "moment_start_frame": 30, "moment_end_frame": 90, "question": "where is cup",
"answer": "sink", "wrong_answers": ["bed", "car", "box"]}`
"""

from typing import Any

from videomind.dataset.base import DroppedRow
from videomind.dataset.schema import Annotation
from videomind.dataset.sub_classes.qa_ego4d import QaEgo4D
from videomind.dataset.views import Answering, AnsweringCrop, Grounding


class EgoTimeQA(QaEgo4D):
    """Generated questions about egocentric videos; rows like QaEgo4D's."""

    names = {
        "ego_timeqa": Answering,
        "ego_timeqa_crop": AnsweringCrop,
        "ego_timeqa_grounding": Grounding,
    }
    splits = {"train": "ego_timeqa/annotations.EgoTimeQA.json"}
    video_root = "ego4d/v2/videos_3fps_480_noaudio"
    durations = "ego4d/v2/durations.json"
    draws_as = "videomind.dataset.sub_classes.ego_timeqa"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        anno = super().parse({**row, "question": row["question"].replace(" l ", " I ")}, split)
        if not 3 <= len(anno.query.split(" ")) <= 30:
            raise DroppedRow("query of fewer than 3 or more than 30 words")
        return anno
