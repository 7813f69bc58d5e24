"""Ego4D Narrations-as-Queries (Ramakrishnan et al., arXiv 2301.00746): train, valid, test.

A row: `"c1": {"num_frames": 900, "fps": 30, "exact_times": [[1.23456, 2]], "sentences": ["opens tin"]}`
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from videomind.dataset.base import DroppedRow, Source
from videomind.dataset.phrases import clean_query
from videomind.dataset.schema import Annotation, as_list
from videomind.dataset.views import Grounding

_QUESTIONS = ("who", "what", "when", "in what", "did", "where", "how", "i what")


class Ego4DNaQ(Source):
    """Narrations of egocentric videos; the training split is filtered."""

    names = {"ego4d_naq": Grounding}
    splits = {"train": "ego4d_naq/train.json", "valid": "ego4d_naq/val.json", "test": "ego4d_naq/test.json"}
    video_root = "ego4d/v2/videos_3fps_480_noaudio"

    def items(self, row: tuple[str, dict[str, Any]], split: str) -> Iterator[tuple]:
        """Yield video id, duration, times, query, and whether it occurs once in its video."""
        vid, video = row
        duration = video["num_frames"] / video["fps"]
        queries = [clean_query(sentence) for sentence in as_list(video["sentences"])]
        counts = Counter(q for q in queries if split != "train" or not _unwanted(q, duration))
        for query, times in zip(queries, as_list(video["exact_times"]), strict=True):
            yield vid, duration, times, query, counts[query] <= 1

    def parse(self, row: tuple[str, float, list, str, bool], split: str) -> Annotation:
        vid, duration, times, query, unique = row
        if split == "train":
            if reason := _unwanted(query, duration):
                raise DroppedRow(reason)
            if not unique:
                raise DroppedRow("query occurs more than once in the video")
        return self.moment(vid, query, [[round(t, 3) for t in times]], duration=duration)


def _unwanted(query: str, duration: float) -> str | None:
    """Say why a narration does not train, or None."""
    if not 10 <= duration <= 600:
        return "video shorter than 10 s or longer than 600 s"
    if query.startswith(_QUESTIONS):
        return "query is a question"
    if "#unsure" in query:
        return "narrator is unsure"
    return None if 3 <= len(query.split(" ")) <= 30 else "query of fewer than 3 or more than 30 words"
