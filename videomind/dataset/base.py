"""Source: the base of every data set. A sub-class declares names, files and how one row is read.

`get_source(name)` finds a registered one; `Source.load(split)` gives its annotations and says what was
dropped and why.
"""

import importlib
import math
import pkgutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from videomind.dataset.readers import read_rows
from videomind.dataset.schema import Annotation
from videomind.dataset.views import View
from videomind.files import read_json
from videomind.roles import VisualBudget, nearest

_REGISTRY: dict[str, type["Source"]] = {}


class DroppedRow(Exception):
    """Raised by `parse` to leave a row out; the reason is counted and reported."""


@dataclass(kw_only=True)
class Loaded:
    """Annotations of one split. Attributes: rows read; dropped, reason to count."""

    source: str
    split: str
    annotations: list[Annotation] = field(default_factory=list)
    num_rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class Source:
    """One data set.

    Class attributes:
        names: registered name to view. splits: split to annotation file, below the data root.
        video_root: folder of its videos. video_name: file name of a video id.
        durations: file of id to seconds, or None when rows carry it.
        train_split, eval_split: the default ones.
        unit_s: grid that predictions are rounded to. min_len_s, min_ratio: smallest clip shown to the
        answerer, in s or as a share of the video. answer_budget: the answerer's frames.
    """

    names: ClassVar[dict[str, type[View]]] = {}
    splits: ClassVar[dict[str, str]]
    video_root: ClassVar[str]
    video_name: ClassVar[str] = "{vid}.mp4"
    durations: ClassVar[str | None] = None
    train_split: ClassVar[str] = "train"
    eval_split: ClassVar[str] = "test"
    unit_s: ClassVar[float] = 0.001
    min_len_s: ClassVar[float] = 32.0
    min_ratio: ClassVar[float | None] = None
    answer_budget: ClassVar[VisualBudget | None] = None

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name in cls.names:
            if name in _REGISTRY and _REGISTRY[name].__qualname__ != cls.__qualname__:
                other = _REGISTRY[name]
                raise ValueError(f"Data set name {name!r} of {cls.__module__} is taken by {other.__module__}")
            _REGISTRY[name] = cls

    def __init__(self, name: str, data_root: str | Path = "data"):
        self.name = name
        self.data_root = Path(data_root)
        self.view: View = self.names[name]()

    def parse(self, row: Any, split: str) -> Annotation | Iterable[Annotation]:
        """One row to annotations. Raises: DroppedRow(reason) to leave it out."""
        raise NotImplementedError

    def load(self, split: str | None = None) -> Loaded:
        """Read a split. Args: split; None is the training split. Raises: ValueError."""
        split = split or self.train_split
        loaded = Loaded(source=self.name, split=split)
        path = self._file(split)
        for number, row in enumerate(read_rows(path), 1):
            loaded.num_rows += 1
            for anno in self._annotations(row, split, path, number, loaded.dropped):
                if reason := _unusable(anno):
                    loaded.dropped[reason] += 1
                else:
                    loaded.annotations.append(anno)
        return loaded

    def check_videos(self) -> None:
        """Raise ValueError when the video folder is not there."""
        folder = self.data_root / self.video_root
        if not folder.is_dir():
            raise ValueError(
                f"No video folder {folder} for {self.name}. Put the videos there (data/README.md), "
                "or name another data root with --data_root."
            )

    def video_path(self, vid: str) -> str:
        """Path of a video by its id."""
        return str(self.data_root / self.video_root / self.video_name.format(vid=vid))

    def duration(self, vid: str) -> float:
        """Length of a video, s. Raises: DroppedRow when the durations file lacks it."""
        if vid not in self._durations:
            raise DroppedRow("no entry in the durations file")
        return self._durations[vid]

    def _annotations(
        self, row: Any, split: str, path: Path, number: int, dropped: Counter[str]
    ) -> Iterator[Annotation]:
        try:
            parsed = self.parse(row, split)
            yield from [parsed] if isinstance(parsed, Annotation) else parsed
        except DroppedRow as reason:
            dropped[str(reason)] += 1
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path}, row {number}, does not fit {self.name}: {what}") from error

    def _file(self, split: str) -> Path:
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}. {nearest(split, self.splits)}")
        return self.data_root / self.splits[split]

    @cached_property
    def _durations(self) -> dict[str, float]:
        path = self.data_root / str(self.durations)
        if not path.is_file():
            raise ValueError(f"No durations file {path} for {self.name} (id to seconds, JSON)")
        return read_json(path)


def _unusable(anno: Annotation) -> str | None:
    """Why no role could use an annotation, or None."""
    if anno.duration is not None and not (math.isfinite(anno.duration) and anno.duration > 0):
        return "duration is not a positive number"
    if anno.span is not None and not all(math.isfinite(t) for span in anno.span for t in span):
        return "span is not a number"
    if anno.query == "" and not anno.question:
        return "empty query"
    return None


def _import_sources() -> None:
    package = importlib.import_module("videomind.dataset.sub_classes")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def source_names() -> list[str]:
    """All registered names, sorted."""
    _import_sources()
    return sorted(_REGISTRY)


def get_source(name: str, data_root: str | Path = "data") -> Source:
    """Look a data set up by name. Raises: ValueError with the nearest name and all that exist."""
    names = source_names()
    if name not in _REGISTRY:
        raise ValueError(f"Unknown data set {name!r} (--datasets). {nearest(name, names)}")
    return _REGISTRY[name](name, data_root)


def parse_names(datasets: str) -> list[str]:
    """Split a comma-separated list of names. Raises: ValueError when it is empty."""
    names = [name.strip() for name in datasets.split(",") if name.strip()]
    if not names:
        raise ValueError("No data set given (--datasets NAME[,NAME...])")
    return names
