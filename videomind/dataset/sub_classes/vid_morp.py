"""Vid-Morp (Bao et al., arXiv 2412.00811): train.

A row: `{"vid": "aaaaaaaaaaa", "duration": 30, "query": "dog runs", "span": [2, 6]}`
"""

from videomind.dataset.sub_classes.cosmo_cap import CosMoCap
from videomind.dataset.views import Grounding


class VidMorp(CosMoCap):
    """Moments with generated queries, of those videos that could be downloaded; rows like CosMo-Cap's."""

    names = {"vid_morp": Grounding}
    splits = {"train": "vid_morp/anno_vid_morp.jsonl"}
    video_root = "vid_morp/videos_3fps_480_noaudio"
    only_present = True
    unit_s = 0.001
