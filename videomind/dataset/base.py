"""Source: the base of every data set. A sub-class declares names, files and how one row is read.

`get_source(name)` finds a registered one. `Source.load(split)` gives the annotations that can be learned
from, `Source.to_predict(split)` all of them; both say what was left out and why.
"""

import importlib
import os
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from videomind.dataset.filters import Report, fault, mended, oddities
from videomind.dataset.layout import Layout, blaming
from videomind.dataset.phrases import capitalize, clean_query, clean_question, letter
from videomind.dataset.readers import read_rows
from videomind.dataset.schema import Annotation, Span, as_list, as_name, as_text
from videomind.dataset.views import View
from videomind.roles import VisualBudget, nearest

_REGISTRY: dict[str, type["Source"]] = {}
SOURCES_VARIABLE = "VIDEOMIND_SOURCES"  # modules outside of the package that declare sources, with commas
VIDEO_MISSING = "video file not found"
NOT_LISTED = "no entry in the durations file"
_END = object()


class DroppedRow(Exception):
    """Raised by `parse` to leave a row out; the reason is counted and reported."""


@dataclass(kw_only=True)
class Loaded(Report):
    """Annotations of one split, and what reading it found."""

    source: str
    split: str
    annotations: list[Annotation] = field(default_factory=list)


class Source(Layout):
    """One data set; what it declares of its files is in `Layout`.

    Attributes:
        names: registered name to view.
        drop_outside: whether moments wholly outside their video are left out when grounding trains.
        only_evaluates: whether it is a benchmark that nothing trains on.
        unit_s: grid that predictions are rounded to.
        min_len_s: smallest excerpt shown to the answerer.
        min_ratio: the same as a share of the video, instead.
        answer_budget: the answerer's frames.
        draws_as: what seeds its random choices beside the row, for sources that draw. It belongs to the
            labels: it stays when the file moves or the class gets another name.
        scorer: how its predictions are scored: the name of a file in `videomind/eval/scorers/`, or
            MODULE:CLASS for one outside of the package.
        row_word: what errors call an element of its files.
    """

    names: ClassVar[dict[str, type[View]]] = {}
    drop_outside: ClassVar[bool] = True
    only_evaluates: ClassVar[bool] = False
    unit_s: ClassVar[float] = 0.001
    min_len_s: ClassVar[float] = 32.0
    min_ratio: ClassVar[float | None] = None
    answer_budget: ClassVar[VisualBudget | None] = None
    draws_as: ClassVar[str | None] = None
    scorer: ClassVar[str] = "default"
    row_word: str = "row"

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name in cls.names:
            if name in _REGISTRY and _REGISTRY[name].__qualname__ != cls.__qualname__:
                other = _REGISTRY[name]
                raise ValueError(f"Data set name {name!r} of {cls.__module__} is taken by {other.__module__}")
            _REGISTRY[name] = cls

    def __init__(self, name: str, data_root: str | Path = "data", *, seed: int = 42):
        super().__init__(name, data_root)
        self.seed = seed
        self.view: View = self.names[name]()

    # What a sub-class writes

    def parse(self, row: Any, split: str) -> Annotation | Iterable[Annotation]:
        """Turn one row, or one item of it, into annotations.

        An exception says that the row is not of the source's shape: the error names file and row.

        Raises:
            DroppedRow: the row is to be left out.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method parse")

    def rows(self, path: Path, split: str) -> Iterable[Any]:
        """Read the rows of an annotation file."""
        return read_rows(path)

    def numbered_rows(self, path: Path, split: str) -> Iterable[tuple[int, Any]]:
        """Read the rows with the numbers they have in errors."""
        return enumerate(self.rows(path, split), 1)

    def items(self, row: Any, split: str) -> Iterable[Any]:
        """Take a row of the file apart where it holds several, or none of this split."""
        return (row,)

    # What `parse` uses

    def moment(self, vid: str, query: str, span: Sequence[Span] | None, /, **fields: Any) -> Annotation:
        """Make an annotation of moments; the duration comes from the durations file unless it is given.

        Args:
            vid: the video's id.
            query: cleaned here.
            span: s.
            fields: more of the annotation's.
        """
        return self._annotation(vid, {**fields, "query": clean_query(as_text(query)), "span": span})

    def asked(
        self,
        vid: str,
        question: str,
        options: Sequence[str] | None = None,
        answer: str | None = None,
        /,
        *,
        right: int | None = None,
        capital: bool = False,
        **fields: Any,
    ) -> Annotation:
        """Make an annotation of a question; its cleaned text is the query too.

        Args:
            vid: the video's id.
            question: cleaned here.
            options: without letters, as they stand in the file.
            answer: one of them, whose place gives the letter `ans`; one that is none of them has no letter.
            right: the answer's place, where the file tells it. Then it decides: two options may be equal.
            capital: whether options and answer begin with a capital letter, whatever the file says.
            fields: more of the annotation's; a given `ans` stays.

        Raises:
            ValueError: `right` is no place of an option.
        """
        options = None if options is None else [as_text(option) for option in as_list(options)]
        if right is not None:
            if type(right) is not int or not 0 <= right < len(options):
                raise ValueError(f"the answer's place {right!r} is none of the {len(options)} options'")
            answer = options[right]
        elif options is not None and answer in options:  # before capitals make options equal
            right = options.index(answer)
        if capital and options is not None:
            options = [capitalize(option) for option in options]
            answer = None if answer is None else capitalize(as_text(answer))
            right = options.index(answer) if right is None and answer in options else right
        if right is not None:
            fields.setdefault("ans", letter(right))
        question = clean_question(as_text(question))
        fields |= {"query": clean_query(question), "question": question}
        return self._annotation(vid, {**fields, "options": options, "answer": answer})

    def _annotation(self, vid: str, fields: dict[str, Any]) -> Annotation:
        if self.duration_files and "duration" not in fields:
            fields["duration"] = self.duration(vid)
        path, kind = self.video_path(vid), self.view.data_type
        return Annotation(source=self.name, data_type=kind, video_path=path, **fields)

    def video_path(self, vid: str) -> str:
        """Name the file of a video.

        Raises:
            DroppedRow: it is not there, and only those that are count.
        """
        name = self.video_name.format(vid=as_name(vid))
        if self.only_present and name not in self.present:
            raise DroppedRow(VIDEO_MISSING)
        return f"{self.folder}/{name}"

    def rng(self, *key: object) -> Random:
        """Make a generator for one row: the same for every process and variant of the data set.

        Raises:
            TypeError: the source declares no `draws_as`.
        """
        if "draws_as" not in vars(type(self)):
            raise TypeError(f"{type(self).__name__} draws at random, so it has to declare draws_as")
        return Random(f"{self.seed}/{self.draws_as}/{'/'.join(map(str, key))}")

    # What others use

    def load(self, split: str | None = None) -> Loaded:
        """Read what can be learned from of a split; None is the training split.

        Raises:
            ValueError: a file is missing or broken, a row of another shape, a split not there.
        """
        loaded = self._loaded(split)
        loaded.annotations.extend(self.read_usable(loaded.split, loaded))
        loaded.noted.update(oddity for anno in loaded.annotations for oddity in oddities(anno))
        return loaded

    def to_predict(self, split: str | None = None) -> Loaded:
        """Read a split for evaluation: no annotation is dropped, so that each gets its record.

        What of an annotation is no number is left out and noted. None is the evaluation split.

        Raises:
            ValueError: as `load` does.
        """
        loaded = self._loaded(split or self.eval_split)
        for anno in self.read(loaded.split, loaded):
            anno, lost = mended(anno)
            loaded.noted.update((*lost, *oddities(anno)))
            loaded.annotations.append(anno)
        return loaded

    def _loaded(self, split: str | None) -> Loaded:
        return Loaded(source=self.name, split=self.resolve_split(split))

    def read_usable(self, split: str, report: Report) -> Iterator[Annotation]:
        """Read the annotations of a split that can be learned from; `report` counts the others."""
        for anno in self.read(split, report):
            reason = fault(anno)
            if self.duration_files and anno.duration is None:
                reason = NOT_LISTED
            if reason is None:
                yield anno
            else:
                report.dropped[reason] += 1

    def read(self, split: str, report: Report) -> Iterator[Annotation]:
        """Read the annotations of a split one by one; in the end `report` says which rows were left out.

        Raises:
            FileError: a row is not of the source's shape; the message names file and row.
        """
        for path in self.files(split):
            where = None
            for where, row in self._named_rows(path, split):
                with blaming(f"{path}, {where},", self.name):
                    annotations = list(self._parsed(row, split, report))
                yield from annotations
            if where is None:
                report.empty.append(str(path))

    def _named_rows(self, path: Path, split: str) -> Iterator[tuple[str, Any]]:
        """Yield the rows of a file, each with what errors call it."""
        rows, number = iter(self.numbered_rows(path, split)), 0
        while True:
            with blaming(f"{path}, {self.row_word} {number + 1},", self.name):
                numbered = next(rows, _END)
            if numbered is _END:
                return
            number, row = numbered
            is_entry = isinstance(row, tuple) and len(row) == 2 and isinstance(row[0], str)
            yield f"{self.row_word} {number}" + (f" ({row[0]!r})" if is_entry else ""), row

    def _parsed(self, row: Any, split: str, report: Report) -> Iterator[Annotation]:
        for item in self.items(row, split):
            report.num_rows += 1
            try:
                parsed = self.parse(item, split)
                annotations = (parsed,) if isinstance(parsed, Annotation) else parsed
                anno = None
                for anno in annotations:
                    anno.check_types()
                    yield anno
                if anno is None:
                    raise DroppedRow("it asks for nothing")
            except DroppedRow as reason:
                report.skipped[str(reason)] += 1


def _import_sources() -> None:
    package = importlib.import_module("videomind.dataset.sub_classes")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for name in filter(None, map(str.strip, os.environ.get(SOURCES_VARIABLE, "").split(","))):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0] and error.name != name:
                raise
            raise ValueError(
                f"No module {name!r} ({SOURCES_VARIABLE}): is its folder in PYTHONPATH?"
            ) from None


def source_names() -> list[str]:
    """List all registered names, sorted."""
    _import_sources()
    return sorted(_REGISTRY)


def get_source(name: str, data_root: str | Path = "data", *, seed: int = 42) -> Source:
    """Look a data set up by name.

    Args:
        name: a registered one.
        data_root: folder of all data sets.
        seed: of whatever the source draws at random.

    Raises:
        ValueError: there is no such name; the message gives the nearest and all that exist.
    """
    names = source_names()
    if name not in _REGISTRY:
        raise ValueError(f"Unknown data set {name!r} (--datasets). {nearest(name, names)}")
    return _REGISTRY[name](name, data_root, seed=seed)
