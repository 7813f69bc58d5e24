"""QuerYD (Oncescu et al., arXiv 2011.11071): train.

A row: `video-abc`, the key of two pickles: `{"video-abc": [["a", "dog"]]}` with the words of each
description, and `{"video-abc": [[1, 4.2]]}` with its times.
"""

from collections.abc import Iterator
from functools import cached_property

from videomind.dataset.base import Source
from videomind.dataset.readers import read_pickle
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Grounding

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
        """See Source."""
        captions, times = self._pickles
        for words, span in zip(captions[row], times[row], strict=True):
            yield self.moment(row.removeprefix("video-"), " ".join(words), [list(span)])

    @cached_property
    def _pickles(self) -> list[dict[str, list]]:
        return [read_pickle(self.data_root / name) for name in self.extra_files]
