"""NExT-QA (Xiao et al., arXiv 2105.08276): train, valid, test.

A row: `video,qid,question,a0,a1,a2,a3,a4,answer,type` = `12,3,why run,x,y,z,w,v,2,CW`, the answer being
the position of the right option.
"""

from functools import cached_property

from videomind.dataset.base import Source
from videomind.dataset.phrases import capitalize
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Answering

NUM_OPTIONS = 5


class NExTQA(Source):
    """Causal, temporal and descriptive questions about everyday videos."""

    names = {"nextqa": Answering}
    splits = {"train": "nextqa/train.csv", "valid": "nextqa/val.csv", "test": "nextqa/test.csv"}
    extra_files = ("nextqa/map_vid_vidorID.json",)
    video_root = "nextqa/NExTVideo"

    def parse(self, row: dict[str, str], split: str) -> Annotation:
        """See Source."""
        uid = f"{row['video']}_{row['qid']}"
        return self.chosen(row["video"], row, row[f"a{int(row['answer'])}"], uid=uid)

    def chosen(self, vid: str, row: dict[str, str], answer: str, **fields: object) -> Annotation:
        """An annotation of a row. Args: vid; answer, one of the options a0 to a4; fields, more."""
        options = [capitalize(row[f"a{i}"]) for i in range(NUM_OPTIONS)]
        question = f"{capitalize(row['question'])}?"
        path_stem = self._stems[vid]
        return self.asked(path_stem, question, options, capitalize(answer), task=row["type"], **fields)

    @cached_property
    def _stems(self) -> dict[str, str]:
        return self.read_mapping(self.extra_files[0], "video id to path without extension")
