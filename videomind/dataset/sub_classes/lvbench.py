"""LVBench (Wang et al., arXiv 2406.08035): test.

A row: `{"key": "k1", "qa": [{"question": "Who?\\n(A) x\\n(B) y\\n(C) z\\n(D) w", "answer": "C",
"question_type": ["reasoning"], "time_reference": "00:10-00:20"}]}`
"""

from collections.abc import Iterator
from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.phrases import place_of
from videomind.dataset.schema import Annotation, as_list
from videomind.dataset.views import Answering

_LETTERS = "ABCD"


class LVBench(Source):
    """Questions about very long videos."""

    names = {"lvbench": Answering}
    only_evaluates = True
    splits = {"test": "lvbench/LVBench/video_info.meta.jsonl"}
    video_root = "lvbench/videos_3fps_480_noaudio"

    def parse(self, row: dict[str, Any], split: str) -> Iterator[Annotation]:
        for pair in as_list(row["qa"]):
            question, *lines = pair["question"].split("\n")
            if [line[:4] for line in lines] != [f"({name}) " for name in _LETTERS]:
                raise ValueError(f"{pair['question']!r} is not a question and the lines (A) to (D)")
            yield self.asked(
                row["key"],
                question,
                [line[4:] for line in lines],
                right=place_of(pair["answer"], len(_LETTERS)),
                task=pair["question_type"],
                time_reference=pair["time_reference"],
            )
