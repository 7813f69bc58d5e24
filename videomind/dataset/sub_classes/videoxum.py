"""VideoXum (Lin et al., arXiv 2303.12060): train, valid, test.

A row: `{"video_id": "v_aaaaaaaaaaa", "duration": 50, "tsum": ["Man cooks."], "vsum": [[[1, 4], ...]]}`,
vsum holding the moments of ten annotators for each sentence.
"""

from collections.abc import Iterator
from typing import Any

from videomind.dataset.base import DroppedRow, Source
from videomind.dataset.schema import Annotation, as_list
from videomind.dataset.views import Grounding
from videomind.spans import plain_mean

NUM_ANNOTATORS = 10


class VideoXum(Source):
    """Sentences of a summary with the average of their moments."""

    names = {"videoxum": Grounding}
    splits = {
        "train": "videoxum/train_videoxum.json",
        "valid": "videoxum/val_videoxum.json",
        "test": "videoxum/test_videoxum.json",
    }
    video_root = "activitynet/videos_3fps_480_noaudio"
    unit_s = 0.01

    def parse(self, row: dict[str, Any], split: str) -> Iterator[Annotation]:
        for query, pairs in zip(as_list(row["tsum"]), as_list(row["vsum"]), strict=False):
            if len(pairs) != NUM_ANNOTATORS:
                raise ValueError(f"{len(pairs)} moments for a sentence, expected {NUM_ANNOTATORS}")
            span = [round(plain_mean(times), 2) for times in zip(*pairs, strict=True)]
            yield self.moment(row["video_id"], query, [span], duration=row["duration"])
        if len(row["tsum"]) != len(row["vsum"]):
            raise DroppedRow("video with sentences that have no moment, or the reverse: those only")
