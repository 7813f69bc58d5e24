"""YouCook2 (Zhou et al., arXiv 1703.09788): train, valid, both in one file.

A row: `"aaaaaaaaaaa": {"subset": "training", "duration": 99, "annotations": [{"sentence": "chop leek",
"segment": [5, 9]}]}`
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.phrases import before_after
from videomind.dataset.schema import Annotation, Span
from videomind.dataset.views import Grounding
from videomind.files import read_json

_FILE = "youcook2/youcookii_annotations_trainval.json"
_SUBSETS = {"train": "training", "valid": "validation"}


class YouCook2(Source):
    """Steps of cooking videos, of those that could be downloaded."""

    names = {"youcook2": Grounding}
    splits = dict.fromkeys(_SUBSETS, _FILE)
    video_root = "youcook2/videos_3fps_480_noaudio"
    only_present = True
    unit_s = 1.0

    def rows(self, path: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The videos of a split."""
        database = read_json(path)["database"]
        return ((vid, video) for vid, video in database.items() if video["subset"] == _SUBSETS[split])

    def parse(self, row: tuple[str, dict[str, Any]], split: str) -> Iterator[Annotation]:
        """See Source."""
        vid, video = row
        steps = [(step["sentence"], step["segment"]) for step in video["annotations"]]
        for query, span in self.moments(steps):
            yield self.moment(vid, query, [span], duration=video["duration"])

    def moments(self, steps: list[tuple[str, Span]]) -> Sequence[tuple[str, Span]]:
        """Query and span of all that the steps of one video ask for."""
        return steps


class YouCook2Bias(YouCook2):
    """Steps named by their neighbour, less than 3 s apart."""

    names = {"youcook2_bias": Grounding}

    def moments(self, steps: list[tuple[str, Span]]) -> Sequence[tuple[str, Span]]:
        """See YouCook2."""
        return list(before_after(steps, max_gap_s=3))
