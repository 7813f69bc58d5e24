"""NExT-GQA (Xiao et al., arXiv 2309.01327): valid, test.

A row: `video_id,qid,question,a0,a1,a2,a3,a4,answer,type` = `12,3,why run,x,y,z,w,v,z,CW`; the moments are in
gsub_{val,test}.json: `{"12": {"duration": 40, "location": {"3": [[1, 2]]}}}`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videomind.dataset.schema import Annotation
from videomind.dataset.sub_classes.nextqa import NExTQA
from videomind.dataset.views import Answering, AnsweringCrop, Grounding


class NExTGQA(NExTQA):
    """NExT-QA's questions with the moments that answer them."""

    names = {"nextgqa": Answering, "nextgqa_crop": AnsweringCrop, "nextgqa_grounding": Grounding}
    splits = {"valid": "nextgqa/val.csv", "test": "nextgqa/test.csv"}
    extra_files = ("nextgqa/map_vid_vidorID.json", "nextgqa/gsub_val.json", "nextgqa/gsub_test.json")
    video_root = "nextqa/videos"
    unit_s = 0.1

    def rows(self, path: Path, split: str) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        """Rows with the labels of their video."""
        labels = self.read_mapping(f"nextgqa/gsub_{path.stem}.json", "video id to moments")
        for row in super().rows(path, split):
            yield row, labels[row["video_id"]]

    def parse(self, row: tuple[dict[str, str], dict[str, Any]], split: str) -> Annotation:
        """See Source."""
        row, video = row
        span = video["location"][row["qid"]]
        return self.chosen(row["video_id"], row, row["answer"], duration=video["duration"], span=span)
