"""ActivityNet-RTL (Huang et al., LITA, arXiv 2403.19046): train, test.

A training row: `"v_aaaaaaaaaaa": {"duration": 60, "QA": [{"q": "When?", "a": "<3.5> to <9> rain"}]}`;
a test row: `{"vid": "aaaaaaaaaaa", "duration": 60, "question": "When?", "answer": "<3.5> <9>"}`
"""

import re
from typing import Any

from videomind.dataset.base import DroppedRow, Source
from videomind.dataset.schema import Annotation, as_list, as_text
from videomind.dataset.views import Grounding

_TIME = re.compile(r"<(\d+(?:\.\d+)?)>")  # s


class ActivityNetRTL(Source):
    """Questions to reason about, answered by a moment."""

    names = {"activitynet_rtl": Grounding}
    splits = {
        "train": "activitynet_rtl/activitynet_train_gpt-4-0613_temp_6_f10009.json",
        "test": "activitynet_rtl/annot_val_1_q229.json",
    }
    video_root = "activitynet/videos_3fps_480_noaudio"
    unit_s = 0.01

    def items(self, row: Any, split: str) -> list[tuple[str, str, str, float]]:
        """List video id, question, answer and duration, which the two files hold in different shapes."""
        if split == "test":
            return [(f"v_{as_text(row['vid'])}", row["question"], row["answer"], row["duration"])]
        vid, video = row
        return [(vid, pair["q"], pair["a"], video["duration"]) for pair in as_list(video["QA"])]

    def parse(self, row: tuple[str, str, str, float], split: str) -> Annotation:
        vid, question, answer, duration = row
        times = sorted(float(time) for time in _TIME.findall(answer)[:2])
        if len(times) < 2 and split == "train":
            raise DroppedRow("fewer than two times in the answer")
        return self.moment(vid, question, [times] if len(times) == 2 else None, duration=duration)
