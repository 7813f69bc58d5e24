"""LongVideoBench (Wu et al., arXiv 2407.15754): valid, test (without answers).

A row: `{"video_id": "@ch-1234567890123456789", "question": "Who?", "candidates": ["a", "b"],
"correct_choice": 1, "duration_group": 60, "level": "L1", "question_category": "S2E"}`
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation, as_list, as_text
from videomind.dataset.views import Answering


class LongVideoBench(Source):
    """Questions about videos of up to an hour."""

    names = {"longvideobench": Answering}
    only_evaluates = True
    splits = {"valid": "longvideobench/lvb_val.json", "test": "longvideobench/lvb_test_wo_gt.json"}
    eval_split = "valid"
    video_root = "longvideobench/videos"

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        vid = as_text(row["video_id"])
        vid = vid[-19:] if vid.startswith("@") else vid
        if len(vid) not in (11, 19):
            raise ValueError(f"video id {row['video_id']!r} is neither 11 nor 19 characters long")
        fields = {name: row[name] for name in ("level", "question_category")}
        fields |= {"right": row.get("correct_choice"), "task": str(row["duration_group"])}
        return self.asked(vid, row["question"], as_list(row["candidates"]), **fields)
