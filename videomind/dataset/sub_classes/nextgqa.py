"""NExT-GQA (Xiao et al., arXiv 2309.01327): valid, test.

A row: `video_id,qid,question,a0,a1,a2,a3,a4,answer,type` = `12,3,why run,x,y,z,w,v,z,CW`; the moments are in
gsub_{val,test}.json: `{"12": {"duration": 40, "location": {"3": [[1, 2]]}}}`.
"""

from typing import Any

from videomind.dataset.schema import Annotation, as_moments, as_number, as_text
from videomind.dataset.sub_classes.nextqa import NExTQA
from videomind.dataset.views import Answering, AnsweringCrop, Grounding

_MOMENTS = {"valid": "nextgqa/gsub_val.json", "test": "nextgqa/gsub_test.json"}


class NExTGQA(NExTQA):
    """NExT-QA's questions with the moments that answer them."""

    names = {"nextgqa": Answering, "nextgqa_crop": AnsweringCrop, "nextgqa_grounding": Grounding}
    splits = {"valid": "nextgqa/val.csv", "test": "nextgqa/test.csv"}
    extra_files = ("nextgqa/map_vid_vidorID.json", *_MOMENTS.values())
    video_root = "nextqa/videos"
    unit_s = 0.1

    def parse(self, row: dict[str, str], split: str) -> Annotation:
        vid, qid = row["video_id"], as_text(row["qid"])

        def labels(video: dict[str, Any]) -> dict[str, Any]:
            spans = {key: as_moments(value) for key, value in video["location"].items() if key == qid}
            return {"duration": as_number(video["duration"]), "span": spans.get(qid)}

        known = self.entry(_MOMENTS[split], "video id to moments", vid, labels)
        if known["span"] is None:
            raise ValueError(f"{self.data_root / _MOMENTS[split]}, entry {vid!r}, has no question {qid!r}")
        return self.chosen(vid, row, row["answer"], **known)
