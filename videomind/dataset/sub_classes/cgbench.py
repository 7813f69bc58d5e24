"""CG-Bench (Chen et al., arXiv 2412.12075): test, the mini set.

A row: `{"video_uid": "u1", "question": "Why?", "choices": ["rain"], "answer": "rain", "right_answer": "A",
"clue_intervals": [[1, 2]], "sub_category": "cause", "domain": "life"}`
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.phrases import capitalize
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Answering


class CGBench(Source):
    """Questions about long videos with the intervals that hold the clues, and subtitles."""

    names = {"cgbench": Answering}
    splits = {"test": "cgbench/cgbench_mini.json"}
    video_root = "cgbench/videos_3fps_480_noaudio"
    durations = "cgbench/durations.json"
    scorer = "cgbench"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        """See Source."""
        return self.asked(
            row["video_uid"],
            row["question"],
            [capitalize(choice) for choice in row["choices"]],
            capitalize(row["answer"]),
            ans=row["right_answer"],
            span=row["clue_intervals"],
            subtitle_path=f"{self.data_root}/cgbench/subtitles/{row['video_uid']}.srt",
            task=row["sub_category"],
            domain=row["domain"],
        )
