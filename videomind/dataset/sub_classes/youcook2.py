"""YouCook2 (Zhou et al., arXiv 1703.09788): train, valid, both in one file.

A row: `"aaaaaaaaaaa": {"subset": "training", "duration": 99, "annotations": [{"sentence": "chop leek",
"segment": [5, 9]}]}`
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.phrases import before_after
from videomind.dataset.schema import Annotation, Span, as_list
from videomind.dataset.views import Grounding
from videomind.files import FileError, read_json
from videomind.roles import nearest

_FILE = "youcook2/youcookii_annotations_trainval.json"
_SUBSETS = {"train": "training", "valid": "validation"}
_ALL_SUBSETS = (*_SUBSETS.values(), "testing")


class YouCook2(Source):
    """Steps of cooking videos, of those that could be downloaded."""

    names = {"youcook2": Grounding}
    splits = dict.fromkeys(_SUBSETS, _FILE)
    video_root = "youcook2/videos_3fps_480_noaudio"
    only_present = True
    unit_s = 1.0

    def rows(self, path: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Read the videos of all splits."""
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
            raise FileError(f"{path} holds no mapping 'database' of videos")
        yield from content["database"].items()

    def items(self, row: tuple[str, dict[str, Any]], split: str) -> list[tuple[str, dict[str, Any]]]:
        """Leave out the videos of other splits."""
        subset = row[1]["subset"]
        if subset not in _ALL_SUBSETS:
            raise ValueError(f"the subset is {subset!r}. {nearest(str(subset), _ALL_SUBSETS)}")
        return [row] if subset == _SUBSETS[split] else []

    def parse(self, row: tuple[str, dict[str, Any]], split: str) -> Iterator[Annotation]:
        vid, video = row
        steps = [(step["sentence"], step["segment"]) for step in as_list(video["annotations"])]
        for query, span in self.moments(steps):
            yield self.moment(vid, query, [span], duration=video["duration"])

    def moments(self, steps: list[tuple[str, Span]]) -> Sequence[tuple[str, Span]]:
        """List query and span of all that the steps of one video ask for."""
        return steps


class YouCook2Bias(YouCook2):
    """Steps named by their neighbour, less than 3 s apart."""

    names = {"youcook2_bias": Grounding}

    def moments(self, steps: list[tuple[str, Span]]) -> Sequence[tuple[str, Span]]:
        return list(before_after(steps, max_gap_s=3))
