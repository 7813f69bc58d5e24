"""ActivityNet-Captions (Krishna et al., arXiv 1705.00754): train, valid (val_1), test (val_2).

A row: `"v_aaaaaaaaaaa": {"duration": 60, "sentences": ["Cat naps."], "timestamps": [[1.5, 4]]}`
"""

from collections.abc import Iterator
from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.phrases import before_after
from videomind.dataset.schema import Annotation, Span, as_list
from videomind.dataset.views import Grounding


class ActivityNetCaptions(Source):
    """Sentences of a paragraph about a video, each with its moment."""

    names = {"activitynet_captions": Grounding}
    splits = {
        "train": "activitynet_captions/train.json",
        "valid": "activitynet_captions/val_1.json",
        "test": "activitynet_captions/val_2.json",
    }
    video_root = "activitynet/videos_3fps_480_noaudio"
    durations = "activitynet/durations.json"
    unit_s = 0.01

    def moments(self, video: dict[str, Any]) -> list[tuple[str, Span]]:
        """List text and span of all that one video asks for."""
        return list(zip(as_list(video["sentences"]), as_list(video["timestamps"]), strict=True))

    def parse(self, row: tuple[str, dict[str, Any]], split: str) -> Iterator[Annotation]:
        vid, video = row
        for query, span in self.moments(video):
            yield self.moment(vid, query, [span])


class ActivityNetCaptionsBias(ActivityNetCaptions):
    """Moments named by their neighbour, less than 3 s apart."""

    names = {"activitynet_captions_bias": Grounding}

    def moments(self, video: dict[str, Any]) -> list[tuple[str, Span]]:
        return list(before_after(super().moments(video), max_gap_s=3))
