"""ReXTime (Chen et al., arXiv 2406.19392): train, valid, test (labels may be absent).

A row: `{"vid": "v_aaaaaaaaaaa", "question": "Why?", "options": ["x"], "answer": "From <s0> to <e0>, x",
"ans": "A", "span": [1, 9], "category": "cause"}`
"""

from pathlib import Path
from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation, as_list
from videomind.dataset.views import Answering, AnsweringCrop, Grounding

_SETS = ("activitynet", "qvhighlights")


class ReXTime(Source):
    """Questions about cause and effect across moments, on videos of ActivityNet and QVHighlights."""

    names = {"rextime": Answering, "rextime_crop": AnsweringCrop, "rextime_grounding": Grounding}
    splits = {
        "train": "rextime/rextime_train.json",
        "valid": "rextime/rextime_val.json",
        "test": "rextime/rextime_test_release.json",
    }
    eval_split = "valid"
    durations = tuple(f"{name}/durations.json" for name in _SETS)
    unit_s = 1.0
    min_len_s = 64.0

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        answer, span = row.get("answer"), row.get("span")
        return self.asked(
            row["vid"],
            row["question"],
            as_list(row["options"]),
            None if answer is None else answer.removeprefix("From <s0> to <e0>, "),
            ans=row.get("ans"),
            capital=True,
            span=None if span is None else [span],
            task=row["category"],
        )

    def video_folders(self) -> list[Path]:
        return [self.data_root / name / "videos_3fps_480_noaudio" for name in _SETS]

    def video_path(self, vid: str) -> str:
        # Ids of ActivityNet are 13 characters long.
        return f"{self.video_folders()[len(vid) != 13]}/{vid}.mp4"
