"""InternVid-VTime (Huang et al., VTimeLLM, arXiv 2311.18445, of Wang et al., InternVid, 2307.06942): train.

Its queries were rewritten by GPT-4o mini. A row:
`{"vid": "aaaaaaaaaaa", "duration": 30, "query": "dog runs", "span": [2, 6]}`
"""

from videomind.dataset.sub_classes.cosmo_cap import CosMoCap
from videomind.dataset.views import Grounding


class InternVidVTime(CosMoCap):
    """Events in web videos, of those that could be downloaded; rows like CosMo-Cap's."""

    names = {"internvid_vtime": Grounding}
    splits = {"train": "internvid_vtime/anno_internvid_vtime_query_gpt4o_mini.jsonl"}
    video_root = "internvid_vtime/videos_crop_3fps_480_noaudio"
    only_present = True
    unit_s = 0.1
