"""Questions with the route that answers them, for the planner: train.

docs/DATA.md explains the routes. A row: `{"source": "x", "data_type": "multimodal", "video_path": "p",
"duration": 90, "route": 1, "question": "q", "query": "r"}`
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Planning
from videomind.files import found_from

FOLDER = "planning"


class MixedPlanning(Source):
    """Rows of several data sets, taken as they are."""

    names = {"mixed_planning": Planning}
    splits = {"train": f"{FOLDER}/planning_nextqa_qvhighlights_gpt4o_mini.jsonl"}

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        return Annotation(**{**row, "video_path": found_from(self.data_root / FOLDER, row.get("video_path"))})
