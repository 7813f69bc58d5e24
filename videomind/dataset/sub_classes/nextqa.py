"""NExT-QA (Xiao et al., arXiv 2105.08276): train, valid, test.

A row: `video,qid,question,a0,a1,a2,a3,a4,answer,type` = `12,3,why run,x,y,z,w,v,2,CW`, the answer being
the position of the right option.
"""

from videomind.dataset.base import Source
from videomind.dataset.phrases import capitalize
from videomind.dataset.schema import Annotation, as_name
from videomind.dataset.views import Answering

NUM_OPTIONS = 5


class NExTQA(Source):
    """Causal, temporal and descriptive questions about everyday videos."""

    names = {"nextqa": Answering}
    splits = {"train": "nextqa/train.csv", "valid": "nextqa/val.csv", "test": "nextqa/test.csv"}
    extra_files = ("nextqa/map_vid_vidorID.json",)
    video_root = "nextqa/NExTVideo"

    def parse(self, row: dict[str, str], split: str) -> Annotation:
        uid = f"{row['video']}_{row['qid']}"
        return self.chosen(row["video"], row, right=int(row["answer"]), uid=uid)

    def chosen(
        self, vid: str, row: dict[str, str], answer: str | None = None, **fields: object
    ) -> Annotation:
        """Make an annotation of a row.

        Args:
            vid: the video's id.
            row: with the question and the options a0 to a4.
            answer: the text of one of them, where `fields` does not say its place.
            fields: for `asked`.
        """
        options = [row[f"a{i}"] for i in range(NUM_OPTIONS)]
        question = f"{capitalize(row['question'])}?" if row["question"].strip() else ""
        path_stem = self.entry(self.extra_files[0], "video id to path without extension", vid, as_name)
        return self.asked(path_stem, question, options, answer, capital=True, task=row["type"], **fields)
