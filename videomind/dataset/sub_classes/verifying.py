"""Candidates of a trained grounder, for the verifier: train.

Written by scripts/data/make_verifying.sh; a file, or a folder of .json files. A row:
`{"video_path": "p", "duration": 90, "query": "q", "span": [[1, 9]], "pred": [[1, 8]], "task": "t"}`
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videomind.dataset.base import Source
from videomind.dataset.schema import Annotation, Span, as_list
from videomind.dataset.views import NUM_CANDIDATES, Verifying
from videomind.files import found_from
from videomind.spans import best_iou

FOLDER = "verifying"
MIN_IOU = 0.5
_SETS = ("qvhighlights", "didemo", "tacos")


class VerifyingData(Source):
    """The first five predictions of every row, each to be judged."""

    names = {f"{name}_verify_{size}": Verifying for name in _SETS for size in ("2b", "7b")}
    splits = {"train": FOLDER}

    def files(self, split: str) -> list[Path]:
        return self.json_files(f"{FOLDER}/verifying_{self.name.replace('_verify', '')}.json")

    def parse(self, row: dict[str, Any], split: str) -> Iterator[Annotation]:
        candidates = as_list(row["pred"])[:NUM_CANDIDATES]
        for pred, positive in zip(candidates, are_positive(candidates, row["span"]), strict=True):
            yield Annotation(
                source=self.name,
                data_type="multimodal",
                video_path=found_from(self.data_root / FOLDER, row["video_path"]),
                duration=row["duration"],
                query=row["query"],
                span=row["span"],
                pred=pred,
                positive=positive,
                task=row.get("task", "unknown"),
            )


def are_positive(candidates: list[Span], span: list[Span]) -> list[bool]:
    """Tell which candidates are right: an IoU of at least 0.5 with a true moment, 0/0 being 0."""
    return (best_iou(candidates, span) >= MIN_IOU).tolist()
