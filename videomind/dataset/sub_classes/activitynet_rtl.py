"""ActivityNet-RTL (Huang et al., LITA, arXiv 2403.19046): train, test.

A training row: `"v_aaaaaaaaaaa": {"duration": 60, "QA": [{"q": "When?", "a": "<3.5> to <9> rain"}]}`;
a test row: `{"vid": "aaaaaaaaaaa", "duration": 60, "question": "When?", "answer": "<3.5> <9>"}`
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videomind.dataset.base import DroppedRow, Source
from videomind.dataset.schema import Annotation, Span
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

    def parse(self, row: Any, split: str) -> Annotation:
        """See Source."""
        vid, question, answer, duration = row
        return self.moment(vid, question, [_first_span(answer)], duration=duration)

    def rows(self, path: Path, split: str) -> Iterator[tuple[str, str, str, float]]:
        """Video id, question, answer and duration, which the two files hold in different shapes."""
        for row in super().rows(path, split):
            if split == "test":
                yield f"v_{row['vid']}", row["question"], row["answer"], row["duration"]
            else:
                vid, video = row
                yield from ((vid, pair["q"], pair["a"], video["duration"]) for pair in video["QA"])


def _first_span(answer: str) -> Span:
    times = [float(time) for time in _TIME.findall(answer)[:2]]
    if len(times) < 2:
        raise DroppedRow("fewer than two times in the answer")
    return sorted(times)
