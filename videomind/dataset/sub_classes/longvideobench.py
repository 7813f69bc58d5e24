"""LongVideoBench (Wu et al., arXiv 2407.15754): valid, test (without answers).

A row: `{"video_id": "@ch-1234567890123456789", "question": "Who?", "candidates": ["a", "b"],
"correct_choice": 1, "duration_group": 60, "level": "L1", "question_category": "S2E"}`
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.phrases import letter
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Answering


class LongVideoBench(Source):
    """Questions about videos of up to an hour."""

    names = {"longvideobench": Answering}
    splits = {"valid": "longvideobench/lvb_val.json", "test": "longvideobench/lvb_test_wo_gt.json"}
    eval_split = "valid"
    video_root = "longvideobench/videos"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        """See Source."""
        vid = row["video_id"][-19:] if row["video_id"].startswith("@") else row["video_id"]
        if len(vid) not in (11, 19):
            raise ValueError(f"video id {row['video_id']!r} is neither 11 nor 19 characters long")
        options, right = row["candidates"], row.get("correct_choice")
        answer, ans = (None, None) if right is None else (options[right], letter(right))
        fields = {name: row[name] for name in ("level", "question_category")}
        fields |= {"ans": ans, "task": str(row["duration_group"])}
        return self.asked(vid, row["question"], options, answer, **fields)
