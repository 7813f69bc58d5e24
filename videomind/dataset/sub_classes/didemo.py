"""DiDeMo (Hendricks et al., arXiv 1708.01641): train, valid, test.

A row: `{"video": "u_1.avi", "times": [[1, 2], [1, 1]], "description": "bird lands"}`, times being the
first and last 5-second chunk that each annotator chose.
"""

from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Grounding
from videomind.spans import plain_mean

CHUNK_S = 5
MAX_SHIFT_S = 2


class DiDeMo(Source):
    """Moments on a grid of 5 s; in training both ends shift by up to 2 s."""

    names = {"didemo": Grounding}
    splits = {
        "train": "didemo/train_data.json",
        "valid": "didemo/val_data.json",
        "test": "didemo/test_data.json",
    }
    video_root = "didemo/videos_3fps_480_noaudio"
    durations = "didemo/durations.json"
    draws_as = "videomind.dataset.sub_classes.didemo"
    # The last chunk often begins where a video ends.
    drop_outside = False
    unit_s = 1.0

    def parse(self, row: dict[str, Any], split: str) -> Annotation:
        first, last = map(plain_mean, zip(*row["times"], strict=True))
        shift = 0
        if split == "train":
            shift = self.rng(row["video"], row["description"]).randint(-MAX_SHIFT_S, MAX_SHIFT_S)
        span = [round(CHUNK_S * first) + shift, round(CHUNK_S * (last + 1)) + shift]
        return self.moment(row["video"].split(".")[0], row["description"], [span])
