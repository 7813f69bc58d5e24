"""Video-MME (Fu et al., arXiv 2405.21075): test.

A row: `{"videoID": "x1", "question": "Who?", "options": ["A. p", "B. q", "C. r", "D. s"], "answer": "B",
"duration": "short"}`, duration being a class.
"""

import os
from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.phrases import letter, place_of
from videomind.dataset.schema import Annotation, as_text
from videomind.dataset.views import Answering
from videomind.roles import VisualBudget

_PREFIX = len("A. ")


class VideoMME(Source):
    """Questions about short, medium and long videos, with subtitles where they are there."""

    names = {"videomme": Answering}
    only_evaluates = True
    splits = {"test": "videomme/test-00000-of-00001.parquet"}
    video_root = "videomme/videos"
    min_ratio = 0.8
    answer_budget = VisualBudget(min_tokens=100, max_tokens=128, max_frames=300, fps=2.0)

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        if [o[:_PREFIX] for o in row["options"]] != [f"{letter(i)}. " for i in range(4)]:
            raise ValueError(f"the options {row['options']} are not the four of A. to D.")
        options = [option[_PREFIX:] for option in row["options"]]
        subtitles = self.data_root / "videomme/subtitle" / f"{as_text(row['videoID'])}.srt"
        fields = {"right": place_of(row["answer"], len(options)), "task": row["duration"]}
        if os.path.isfile(subtitles):
            fields["subtitle_path"] = str(subtitles)
        return self.asked(row["videoID"], row["question"], options, **fields)
