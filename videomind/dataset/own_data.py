"""Data sets without code: a .jsonl file of rows in the schema of docs/CUSTOM_DATASET.md.

`--datasets path/to/annos.jsonl` reads it. One file holds one kind of row.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from videomind.dataset.base import VIDEO_MISSING, DroppedRow, Source
from videomind.dataset.layout import Layout
from videomind.dataset.phrases import clean_query, clean_question, letter
from videomind.dataset.schema import Annotation
from videomind.dataset.sub_classes.verifying import are_positive
from videomind.dataset.views import (
    NUM_CANDIDATES,
    Answering,
    AnsweringCrop,
    Grounding,
    Planning,
    Verifying,
    View,
)
from videomind.files import FileError, found_from, read_json_lines, status_of
from videomind.roles import nearest
from videomind.video.request import ImageList

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIEWS: dict[str, type[View]] = {
    "grounding": Grounding,
    "answering": Answering,
    "answering_crop": AnsweringCrop,
    "verifying": Verifying,
    "planning": Planning,
}
_FIELDS = {
    "video": str | list,
    "video_path": str | list,
    "view": str,
    "duration": int | float,
    "fps": int | float,
    "query": str,
    "question": str,
    "options": list,
    "answer": str,
    "span": list,
    "pred": list,
    "positive": bool,
    "route": int,
    "task": str,
    # What our own files hold beside; not used.
    "conf": list,
    "source": str,
    "data_type": str,
}


class OwnData(Source):
    """A file of your own.

    Training leaves rows out whose video is not there or cannot be read; evaluation predicts all of them, so
    that each has its record.

    Args:
        path: of a .jsonl file, or a .json file with a list.
        data_root: not used; the file says where its videos are.
        seed: not used, nothing is drawn.
    """

    splits = {"train": "the file itself", "test": "the same"}

    def __init__(self, path: str, data_root: str | Path = "data", *, seed: int = 42):
        Layout.__init__(self, path, data_root)
        self.path, self.seed = Path(path), seed
        self.row_word = "line" if self.path.suffix == ".jsonl" else "item"
        first = next(iter(self.numbered_rows(self.path, "train")), None)
        if first is None:
            raise FileError(f"{path} holds no row")
        number, row = first
        self.kind = _kind(row, f"{path}, {self.row_word} {number},")
        self.view = VIEWS[self.kind]()

    def files(self, split: str) -> list[Path]:
        return [self.path]

    def numbered_rows(self, path: Path, split: str) -> Iterable[tuple[int, Any]]:
        # Lines are counted with the blank ones.
        if path.suffix != ".jsonl":
            return super().numbered_rows(path, split)
        if not os.path.isfile(path):
            raise FileError(f"No annotation file {path} (--datasets)")
        return read_json_lines(path)

    def inputs(self, split: str) -> list[Path]:
        # Which rows train depends on the videos: those that are there, and can be read.
        videos: set[Path] = set()
        for _, row in self.numbered_rows(self.path, split):
            paths = list(map(Path, _paths(row, self.path.parent))) if isinstance(row, dict) else []
            videos |= set(paths) if len(paths) == 1 else {path.parent for path in paths}
        return [*super().inputs(split), *sorted(videos)]

    def parse(self, row: dict[str, Any], split: str) -> Iterator[Annotation]:
        if (kind := _kind(row, "this row")) != self.kind:
            raise ValueError(f"it is a row for {kind}, the first one is for {self.kind}: use one file each")
        _check_fields(row)
        path = self._video(row, split)
        question = row.get("question")
        query = row.get("query", question)
        fields = {
            "source": self.path.stem,
            "data_type": self.view.data_type,
            "video_path": path,
            "duration": row["duration"] if "duration" in row else self._probe(path, split),
            "query": None if query is None else clean_query(query),
            "question": None if question is None else clean_question(question),
            "span": row.get("span"),
            "task": row.get("task"),
            "route": row.get("route"),
            **_options(row),
        }
        candidates = row.get("pred", [])[:NUM_CANDIDATES]
        if self.kind != "verifying":
            yield Annotation(**fields)
        elif "positive" not in row and not row.get("span"):
            raise ValueError("a candidate needs 'positive' (true or false), or 'span' to tell by")
        else:
            if (label := row.get("positive")) is None:
                labels = are_positive(candidates, row["span"])
            else:
                labels = [label] * len(candidates)
            for pred, positive in zip(candidates, labels, strict=True):
                yield Annotation(**fields, pred=pred, positive=positive)

    def _probe(self, path: str | list[str], split: str) -> float | None:
        """Read the length of a video, s, where the role trains with it.

        Raises:
            DroppedRow: it cannot be read.
        """
        if split == "test" or "duration" not in self.view.required:
            return None
        from videomind.video.excerpts import video_duration
        from videomind.video.reader import BadVideoError

        try:
            return video_duration(path)
        except BadVideoError as error:
            raise DroppedRow("video cannot be read") from error

    def _video(self, row: dict[str, Any], split: str) -> str | list[str]:
        """Find the video's path, or those of its images."""
        paths = _paths(row, self.path.parent)
        if not paths:
            raise ValueError("no field 'video'")
        if split == "train" and None in map(status_of, paths):
            raise DroppedRow(VIDEO_MISSING)
        if isinstance(row.get("video", row.get("video_path")), list) or os.path.isdir(paths[0]):
            return _with_rate(paths, row)
        if "fps" in row:
            raise ValueError("fps is of a list of images or a folder of them, a video file has its own")
        return paths[0]


def _paths(row: dict[str, Any], folder: Path) -> list[str]:
    """List a row's files: `video` is relative to a folder, `video_path` found from there."""
    video = row.get("video", row.get("video_path"))
    names = video if isinstance(video, list) else [video]
    names = [name for name in names if isinstance(name, str) and name]
    return [str(folder / name) if "video" in row else found_from(folder, name) for name in names]


def _with_rate(paths: list[str], row: dict[str, Any]) -> ImageList:
    """List images, or those of a folder by the numbers in their names, as a video.

    Its rate is the row's `fps`, or what its `duration` makes of it, or one image per second.
    """
    if len(paths) == 1 and os.path.isdir(paths[0]):
        names = (path for path in Path(paths[0]).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        paths = [str(path) for path in sorted(names, key=_natural)]
        if not paths:
            raise ValueError(f"no images in the folder ({', '.join(IMAGE_SUFFIXES)})")
    duration = row.get("duration")
    return ImageList(paths, fps=row.get("fps", len(paths) / duration if duration else 1.0))


def _natural(path: Path) -> list[int | str]:
    """Sort 2.jpg before 10.jpg: split a name at its numbers."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", path.name)]


def _kind(row: Any, where: str) -> str:
    """Tell which view a row is for: its field `view`, or what its other fields make of it."""
    if not isinstance(row, dict):
        raise ValueError(f"{where} holds {row!r}, expected a JSON object")
    if "view" in row:
        if row["view"] not in VIEWS:
            raise ValueError(f"{where} has the view {row['view']!r}. {nearest(str(row['view']), VIEWS)}")
        return row["view"]
    for field, kind in (("route", "planning"), ("pred", "verifying"), ("question", "answering")):
        if field in row:
            return kind
    if "query" not in row:
        raise ValueError(f"{where} has neither 'query' nor 'question'")
    return "grounding"


def _check_fields(row: dict[str, Any]) -> None:
    for name, value in row.items():
        if name not in _FIELDS:
            raise ValueError(f"unknown field {name!r}. {nearest(name, _FIELDS)}")
        kind = _FIELDS[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            allowed = " or ".join(t.__name__ for t in getattr(kind, "__args__", (kind,)))
            raise TypeError(f"{name} is {value!r}, expected {allowed}")


def _options(row: dict[str, Any]) -> dict[str, Any]:
    """Read options, answer and its letter."""
    options, answer = row.get("options"), row.get("answer")
    if options is None or answer is None:
        return {"options": options, "answer": answer}
    if answer not in options:
        raise ValueError(f"the answer {answer!r} is not among the options {options}")
    return {"options": options, "answer": answer, "ans": letter(options.index(answer))}
