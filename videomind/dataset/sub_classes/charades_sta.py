"""Charades-STA (Gao et al., TALL, arXiv 1705.02101): train, test.

A row: `AB1CD 2.0 7.5##child waves.`
"""

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Grounding


class CharadesSTA(Source):
    """Queries of one moment each in videos of household activities."""

    names = {"charades_sta": Grounding}
    splits = {
        "train": "charades_sta/charades_sta_train.txt",
        "test": "charades_sta/charades_sta_test.txt",
    }
    video_root = "charades_sta/videos_3fps_480_noaudio"
    durations = "charades_sta/durations.json"
    unit_s = 0.1

    def parse(self, row: str, split: str) -> Annotation:
        identity, query = row.split("##")
        vid, start, end = identity.split()
        return self.moment(vid, query, [[float(start), float(end)]])
