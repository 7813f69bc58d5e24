"""CG-Bench (Chen et al., arXiv 2412.12075): test, the mini set.

A row: `{"video_uid": "u1", "question": "Why?", "choices": ["rain"], "answer": "rain", "right_answer": "A",
"clue_intervals": [[1, 2]], "sub_category": "cause", "domain": "life"}`
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation, as_list, as_text
from videomind.dataset.views import Answering


class CGBench(Source):
    """Questions about long videos with the intervals that hold the clues, and subtitles."""

    names = {"cgbench": Answering}
    only_evaluates = True
    splits = {"test": "cgbench/cgbench_mini.json"}
    video_root = "cgbench/videos_3fps_480_noaudio"
    durations = "cgbench/durations.json"
    scorer = "cgbench"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        return self.asked(
            row["video_uid"],
            row["question"],
            as_list(row["choices"]),
            row["answer"],
            ans=as_text(row["right_answer"]),
            capital=True,
            span=as_list(row["clue_intervals"]),
            subtitle_path=f"{self.data_root}/cgbench/subtitles/{row['video_uid']}.srt",
            task=row["sub_category"],
            domain=row["domain"],
        )
