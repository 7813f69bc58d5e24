"""TACoS (Regneri et al., TACL 2013): train, valid, test.

A row: `{"vid": "s13-d21", "duration": 90, "query": "cut leek", "relevant_windows": [[3, 8]]}`
"""

from videomind.dataset.sub_classes.ego4d_nlq import Ego4DNLQ
from videomind.dataset.views import Grounding


class TACoS(Ego4DNLQ):
    """Sentences about cooking videos, one moment each; rows like Ego4D-NLQ's."""

    names = {"tacos": Grounding}
    splits = {"train": "tacos/train.jsonl", "valid": "tacos/val.jsonl", "test": "tacos/test.jsonl"}
    video_root = "tacos/videos_3fps_480_noaudio"
    video_name = "{vid}-cam-002.mp4"
