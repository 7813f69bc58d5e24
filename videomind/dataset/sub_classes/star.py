"""STAR (Wu et al., arXiv 2405.09711): train, valid.

A row: `{"question_id": "Interaction_T1_1", "video_id": "AB1CD", "start": 1, "end": 4, "question": "Which?",
"choices": [{"choice": "cup"}], "answer": "cup"}`
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation, as_list
from videomind.dataset.views import AnsweringCrop


class STAR(Source):
    """Questions about situations in Charades' videos, shown exactly as the row crops them."""

    names = {"star": AnsweringCrop}
    splits = {"train": "star/STAR_train.json", "valid": "star/STAR_val.json"}
    video_root = "charades_sta/videos_3fps_480_noaudio"
    durations = "charades_sta/durations.json"
    unit_s = 0.1

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        options = [choice["choice"] for choice in as_list(row["choices"])]
        fields = {
            "span": [[row["start"], row["end"]]],
            "task": row["question_id"].split("_")[0],
            "no_aug": True,
        }
        return self.asked(row["video_id"], row["question"], options, row["answer"], **fields)
