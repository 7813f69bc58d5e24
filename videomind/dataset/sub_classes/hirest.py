"""HiREST (Zala et al., arXiv 2303.16406): train, valid.

A row: `"make tea": {"aaaaaaaaaaa.mp4": {"relevant": true, "clip": true, "v_duration": 90, "bounds": [4, 70],
"steps": [{"heading": "boil", "absolute_bounds": [4, 20]}]}}`
"""

from collections.abc import Iterator, Sequence
from typing import Any

from videomind.dataset.base import DroppedRow, Source
from videomind.dataset.phrases import before_after
from videomind.dataset.schema import Annotation, Span, as_list
from videomind.dataset.views import Grounding


class HiRESTGrounding(Source):
    """The part of a how-to video that its title asks for."""

    names = {"hirest_grounding": Grounding}
    splits = {"train": "hirest/all_data_train.json", "valid": "hirest/all_data_val.json"}
    video_root = "hirest/videos_3fps_480_noaudio"
    video_name = "{vid}"
    only_present = True
    unit_s = 1.0

    def items(self, row: tuple[str, dict[str, Any]], split: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield title, file name and labels of every video."""
        title, videos = row
        yield from ((title, name, video) for name, video in videos.items())

    def parse(self, row: tuple[str, str, dict[str, Any]], split: str) -> Iterator[Annotation]:
        title, name, video = row
        if not (video["relevant"] and video["clip"]):
            raise DroppedRow("video is not relevant or has no clip")
        for query, span in self.moments(title, video):
            yield self.moment(name, query, [span], duration=video["v_duration"])

    def moments(self, title: str, video: dict[str, Any]) -> Sequence[tuple[str, Span]]:
        """List query and span of all that one video asks for."""
        return [(title, video["bounds"])]


class HiRESTStep(HiRESTGrounding):
    """The steps of a how-to video."""

    names = {"hirest_step": Grounding}

    def moments(self, title: str, video: dict[str, Any]) -> Sequence[tuple[str, Span]]:
        return [(step["heading"], step["absolute_bounds"]) for step in as_list(video["steps"])]


class HiRESTStepBias(HiRESTStep):
    """Steps named by their neighbour."""

    names = {"hirest_step_bias": Grounding}

    def moments(self, title: str, video: dict[str, Any]) -> Sequence[tuple[str, Span]]:
        return list(before_after(super().moments(title, video)))
