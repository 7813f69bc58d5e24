"""Source: the base of every data set. A sub-class declares names, files and how one row is read.

`get_source(name)` finds a registered one; `Source.load(split)` gives its annotations and says what was
dropped and why.
"""

import importlib
import math
import pkgutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from videomind.dataset.phrases import clean_query, clean_question, letter
from videomind.dataset.readers import read_rows
from videomind.dataset.schema import Annotation, Span
from videomind.dataset.views import View
from videomind.files import read_json
from videomind.prediction import PUBLISHED_KEYS
from videomind.roles import VisualBudget, nearest

_TAKEN = {field.name for field in fields(Annotation)} | PUBLISHED_KEYS
_REGISTRY: dict[str, type["Source"]] = {}
VIDEO_MISSING = "video file not found"  # may be otherwise next time, whatever the annotation files say
_SPLIT_ALIASES = {"val": "valid", "validation": "valid"}


class DroppedRow(Exception):
    """Raised by `parse` to leave a row out; the reason is counted and reported."""


@dataclass(kw_only=True)
class Report:
    """What reading a split found. Attributes: num_rows of the files; reason to count of annotations that
    were dropped, and of those that were kept although something is odd."""

    num_rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)


@dataclass(kw_only=True)
class Loaded(Report):
    """Annotations of one split, and what reading it found."""

    source: str
    split: str
    annotations: list[Annotation] = field(default_factory=list)


class Source:
    """One data set.

    Class attributes:
        names: registered name to view. splits: split to its annotation file or files below the data root
        (a folder stands for its .json files). durations: file of id to seconds, or None when rows carry
        it. extra_files: whatever else it reads.
        drop_outside: whether moments wholly outside their video are left out when grounding trains.
        video_root: folder of its videos. video_name: file name of a video id. only_present: whether
        annotations of videos that are not there are left out.
        train_split, eval_split: the default ones, chosen from the splits unless given; train_split is
        None for data sets that only evaluate.
        unit_s: grid that predictions are rounded to. min_len_s, min_ratio: smallest excerpt shown to the
        answerer, in s or as a share of the video. answer_budget: the answerer's frames.
        draws_as: what seeds its random choices beside the row, for sources that draw. It belongs to the
        labels: it stays when the file moves or the class gets another name.
        scorer: how its predictions are scored: the name of a file in `videomind/eval/scorers/`, or
        MODULE:CLASS for one outside of the package.
    """

    names: ClassVar[dict[str, type[View]]] = {}
    splits: ClassVar[dict[str, str | tuple[str, ...]]] = {}
    durations: ClassVar[str | None] = None
    extra_files: ClassVar[tuple[str, ...]] = ()
    video_root: ClassVar[str | None] = None
    video_name: ClassVar[str] = "{vid}.mp4"
    only_present: ClassVar[bool] = False
    drop_outside: ClassVar[bool] = True
    train_split: ClassVar[str | None] = None
    eval_split: ClassVar[str | None] = None
    unit_s: ClassVar[float] = 0.001
    min_len_s: ClassVar[float] = 32.0
    min_ratio: ClassVar[float | None] = None
    answer_budget: ClassVar[VisualBudget | None] = None
    draws_as: ClassVar[str | None] = None
    scorer: ClassVar[str] = "default"
    row_word: str = "row"  # what errors call an element of its files

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "splits" in vars(cls):
            if "train_split" not in vars(cls):
                cls.train_split = "train" if "train" in cls.splits else None
            if "eval_split" not in vars(cls):
                cls.eval_split = next((s for s in ("test", "valid", "train") if s in cls.splits), None)
        for name in cls.names:
            if name in _REGISTRY and _REGISTRY[name].__qualname__ != cls.__qualname__:
                other = _REGISTRY[name]
                raise ValueError(f"Data set name {name!r} of {cls.__module__} is taken by {other.__module__}")
            _REGISTRY[name] = cls

    def __init__(self, name: str, data_root: str | Path = "data", *, seed: int = 42):
        self.name = name
        self.data_root = Path(data_root)
        self.seed = seed
        self.view: View = self.names[name]()

    # What a sub-class writes

    def parse(self, row: Any, split: str) -> Annotation | Iterable[Annotation]:
        """One row to annotations. Raises: DroppedRow(reason) to leave it out."""
        raise NotImplementedError

    def rows(self, path: Path, split: str) -> Iterable[Any]:
        """The rows of an annotation file."""
        return read_rows(path)

    def numbered_rows(self, path: Path, split: str) -> Iterable[tuple[int, Any]]:
        """The rows with the numbers they have in errors."""
        return enumerate(self.rows(path, split), 1)

    # What `parse` uses

    def moment(self, vid: str, query: str, span: Sequence[Span] | None, /, **fields: Any) -> Annotation:
        """An annotation of moments. Args: vid, the video's id; query, cleaned here; span, s; fields, more.

        The duration comes from the durations file unless it is given.
        """
        return self._annotation(vid, {**fields, "query": clean_query(query), "span": span})

    def asked(
        self,
        vid: str,
        question: str,
        options: Sequence[str] | None = None,
        answer: str | None = None,
        /,
        **fields: Any,
    ) -> Annotation:
        """An annotation of a question; its cleaned text is the query too.

        Args: options without letters; answer, one of them, whose letter becomes `ans` unless that is
        given. An answer that is none of the options has no letter.
        """
        if "ans" not in fields and options is not None and answer in options:
            fields["ans"] = letter(options.index(answer))
        fields |= {"query": clean_query(question), "question": clean_question(question)}
        return self._annotation(vid, {**fields, "options": options, "answer": answer})

    def _annotation(self, vid: str, fields: dict[str, Any]) -> Annotation:
        if self.durations is not None and "duration" not in fields:
            fields["duration"] = self.duration(vid)
        path, kind = self.video_path(vid), self.view.data_type
        return Annotation(source=self.name, data_type=kind, video_path=path, **fields)

    def video_path(self, vid: str) -> str:
        """Path of a video by its id. Raises: DroppedRow when only those that are there count."""
        name = self.video_name.format(vid=vid)
        if self.only_present and name not in self._present:
            raise DroppedRow(VIDEO_MISSING)
        return f"{self._folder}/{name}"

    def duration(self, vid: str) -> float:
        """Length of a video, s. Raises: DroppedRow when the durations file lacks it."""
        if vid not in self._durations:
            raise DroppedRow("no entry in the durations file")
        return self._durations[vid]

    def rng(self, *key: object) -> Random:
        """A generator for one row: the same for every process and variant of the data set.

        Raises:
            TypeError: the source declares no `draws_as`.
        """
        if "draws_as" not in vars(type(self)):
            raise TypeError(f"{type(self).__name__} draws at random, so it has to declare draws_as")
        return Random(f"{self.seed}/{self.draws_as}/{'/'.join(map(str, key))}")

    # What others use

    def load(self, split: str | None = None) -> Loaded:
        """Read a split. Args: split; None is the training split. Raises: ValueError."""
        split = self.resolve_split(split)
        loaded = Loaded(source=self.name, split=split)
        loaded.annotations.extend(self.read(split, loaded))
        loaded.noted.update(oddity for anno in loaded.annotations for oddity in oddities(anno))
        return loaded

    def read(self, split: str, report: Report) -> Iterator[Annotation]:
        """Annotations of a split one by one; in the end `report` says what was left out."""
        for path in self.files(split):
            for number, row in self.numbered_rows(path, split):
                report.num_rows += 1
                try:
                    parsed = self.parse(row, split)
                    for anno in (parsed,) if isinstance(parsed, Annotation) else parsed:
                        if reason := check(anno):
                            report.dropped[reason] += 1
                        else:
                            yield anno
                except DroppedRow as reason:
                    report.dropped[str(reason)] += 1
                except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                    what = f"no field {error}" if isinstance(error, KeyError) else str(error)
                    raise ValueError(
                        f"{path}, {self.row_word} {number}, does not fit {self.name}: {what}"
                    ) from error

    def resolve_split(self, split: str | None) -> str:
        """A declared split by its name; None is the training split. Raises: ValueError that lists them."""
        if split is None:
            if self.train_split is None:
                raise ValueError(
                    f"{self.name} has no split to train on. Its splits: {', '.join(sorted(self.splits))}."
                )
            return self.train_split
        if split not in self.splits:
            split = _SPLIT_ALIASES.get(split, split)
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}. {nearest(split, self.splits)}")
        return split

    def files(self, split: str) -> list[Path]:
        """The annotation files of a split. Raises: ValueError when a folder holds none."""
        names = self.splits[split]
        return [p for name in ([names] if isinstance(names, str) else names) for p in self.json_files(name)]

    def json_files(self, name: str) -> list[Path]:
        """A file below the data root, or all .json files of a folder. Raises: ValueError for an empty one."""
        path = self.data_root / name
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"The folder {path} of {self.name} holds no .json file")
        return inside

    def annotation_files(self, split: str) -> list[Path]:
        """All files that are read for a split: rows, durations and whatever else."""
        more = [self.data_root / name for name in (self.durations, *self.extra_files) if name is not None]
        return [*self.files(split), *more]

    def inputs(self, split: str) -> list[Path]:
        """All that the annotations of a split depend on: when none of it changed, neither did they."""
        return [*self.annotation_files(split), *(self.video_folders() if self.only_present else ())]

    def video_folders(self) -> list[Path]:
        """Where the videos are; empty when the rows say it."""
        return [] if self.video_root is None else [self.data_root / self.video_root]

    def check_videos(self) -> None:
        """Raise ValueError when a video folder is not there."""
        for folder in self.video_folders():
            if not folder.is_dir():
                raise ValueError(
                    f"No video folder {folder} for {self.name}. Put the videos there (data/README.md), "
                    "or name another data root with --data_root."
                )

    @cached_property
    def _folder(self) -> str:
        return str(self.data_root / str(self.video_root))

    @cached_property
    def _present(self) -> frozenset[str]:
        self.check_videos()
        return frozenset(path.name for path in self.video_folders()[0].iterdir())

    @cached_property
    def _durations(self) -> dict[str, float]:
        return self.read_mapping(str(self.durations), "id to seconds")

    def read_mapping(self, name: str, what: str) -> dict[str, Any]:
        """A JSON mapping below the data root. Args: what it maps, for the error. Raises: ValueError."""
        path = self.data_root / name
        if not path.is_file():
            raise ValueError(f"No file {path} for {self.name} (JSON, {what})")
        value = read_json(path)
        if not isinstance(value, dict):
            raise ValueError(f"{path} holds a {type(value).__name__}, expected a mapping of {what}")
        return value


def check(anno: Annotation) -> str | None:
    """Why no role could use an annotation, or None.

    Raises: TypeError or ValueError that names a value whose type is not the schema's.
    """
    if anno.meta and (taken := sorted(anno.meta.keys() & _TAKEN)):
        raise ValueError(f"meta has the key {taken[0]!r}, which a prediction holds already")
    for value in (anno.query, anno.question, anno.answer, anno.ans, *(anno.options or ())):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{value!r} stands where text is expected")
    numbers = [] if anno.duration is None else [anno.duration]
    for span in (*(anno.span or ()), *(() if anno.pred is None else (anno.pred,))):
        if not isinstance(span, list | tuple) or len(span) != 2:
            raise ValueError(f"the moment {span!r} is not a [start, end] pair")
        numbers += span
    for value in numbers:
        if type(value) not in (float, int):
            raise TypeError(f"{value!r} is not a number of seconds")
    if anno.duration is not None and not 0 < anno.duration < math.inf:
        return "duration is not a positive number"
    if not all(map(math.isfinite, numbers)):
        return "span is not a number"
    return "empty query" if anno.query == "" and not anno.question else None


def oddities(anno: Annotation) -> list[str]:
    """What is strange about an annotation that is kept."""
    found = []
    for start, end in anno.span or ():
        if end <= start:
            found.append("moment ends before it starts, or at once")
        if anno.duration is not None and (end > anno.duration or start > anno.duration):
            found.append("moment reaches beyond the video's end")
    if anno.options is not None and anno.answer is not None and anno.ans is None:
        found.append("answer is not among the options")
    return list(dict.fromkeys(found)) if found else found


def _import_sources() -> None:
    package = importlib.import_module("videomind.dataset.sub_classes")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def source_names() -> list[str]:
    """All registered names, sorted."""
    _import_sources()
    return sorted(_REGISTRY)


def get_source(name: str, data_root: str | Path = "data", *, seed: int = 42) -> Source:
    """Look a data set up by name.

    Args: seed, of whatever the source draws at random.
    Raises: ValueError with the nearest name and all that exist.
    """
    names = source_names()
    if name not in _REGISTRY:
        raise ValueError(f"Unknown data set {name!r} (--datasets). {nearest(name, names)}")
    return _REGISTRY[name](name, data_root, seed=seed)
