"""QuerYD (Oncescu et al., arXiv 2011.11071): train.

A row: `video-abc`, the key of two pickles: `{"video-abc": [["a", "dog"]]}` with the words of each
description, and `{"video-abc": [[1, 4.2]]}` with its times.
"""

from collections.abc import Iterable, Iterator

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation, Span, as_list, as_moments, as_text
from videomind.dataset.views import Grounding
from videomind.files import FileError

_WORDS = "queryd/raw_captions_combined_filtered-v2.pkl"
_TIMES = "queryd/times_captions_combined_filtered-v2.pkl"


class QuerYD(Source):
    """Audio descriptions with their moments."""

    names = {"queryd": Grounding}
    splits = {"train": "queryd/train_list.txt"}
    extra_files = (_WORDS, _TIMES)
    video_root = "queryd/videos_3fps_480_noaudio"
    durations = "queryd/durations.json"

    def parse(self, row: str, split: str) -> Iterator[Annotation]:
        captions = self.entry(_WORDS, "video to words of its descriptions", row, _sentences)
        times = self.entry(_TIMES, "video to times of its descriptions", row, _spans)
        if len(captions) != len(times):
            lengths = f"{len(captions)} descriptions, {self.data_root / _TIMES} {len(times)} times"
            raise FileError(f"{self.data_root / _WORDS}, entry {row!r}, has {lengths}")
        for query, span in zip(captions, times, strict=True):
            yield self.moment(row.removeprefix("video-"), query, span)


def _sentences(captions: Iterable[list[str]]) -> list[str]:
    return [as_text(" ".join(as_list(words))) for words in captions]


def _spans(times: Iterable[Iterable[float]]) -> list[list[Span]]:
    return [as_moments([list(span)]) for span in times]
