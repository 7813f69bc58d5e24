"""The cache of annotations: read and filtered once, then mapped into memory by every process.

A slot holds one data set, split and set of filters in its newest state. The state's name is made of all that
the annotations depend on: their files, the code that reads them, and the videos that are there where those
decide.
"""

import gc
import hashlib
import inspect
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from videomind.dataset.base import VIDEO_MISSING, Report, Source, oddities
from videomind.dataset.filters import Filters
from videomind.dataset.schema import Annotation
from videomind.dataset.table import AnnotationTable, write_table
from videomind.files import read_json, write_json
from videomind.imports import reached_files

CACHE_VARIABLE = "VIDEOMIND_CACHE"


class Cache:
    """The cached annotations of a split. Args: source; split, a declared one; filters.

    Raises: ValueError when the cache's folder cannot be written.
    """

    def __init__(self, source: Source, split: str, filters: Filters):
        self.source, self.split, self.filters = source, split, filters
        slot, state = _fingerprints(source, split, filters)
        folder = cache_folder() / slot
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"Cannot write the cache of annotations to {folder}: {error.strerror}. Name another folder "
                f"with the environment variable {CACHE_VARIABLE}."
            ) from error
        self.table = folder / f"{state}.arrow"
        self.report = folder / f"{state}.json"  # written last: it says that the table is whole

    def is_fresh(self) -> bool:
        """Whether the annotations are there in their present state."""
        if not self.report.is_file():
            return False
        # The state of a video folder is part of the name; that of single files is not.
        return self.source.only_present or not read_json(self.report)["dropped"].get(VIDEO_MISSING)

    def size(self) -> int:
        """Bytes of the annotation files."""
        return sum(path.stat().st_size for path in self.source.files(self.split) if path.is_file())

    def prepare(self, show: bool = False) -> None:
        """Read and write what is not fresh; one process at a time. Args: show a progress bar."""
        with FileLock(self.table.parent / "lock"):
            if self.is_fresh():
                return
            for old in (*self.table.parent.glob("*.json"), *self.table.parent.glob("*.arrow")):
                old.unlink()
            report = Report()
            with collection_paused():
                write_table(self.table, self._kept(report, show))
            write_json(self.report, vars(report))

    def load(self) -> tuple[AnnotationTable, Report]:
        """The annotations, and what reading and filtering left out."""
        self.prepare(show=True)
        report = read_json(self.report)
        return AnnotationTable(self.table), Report(
            num_rows=report["num_rows"], dropped=Counter(report["dropped"]), noted=Counter(report["noted"])
        )

    def _kept(self, report: Report, show: bool) -> Iterator[tuple[Annotation, int]]:
        source, view = self.source, self.source.view
        rows = source.read(self.split, report)
        for anno in tqdm(rows, desc=source.name, unit=" annotations", delay=2, disable=not show):
            reason, num_words = self.filters.examine(anno, view)
            if reason is None and source.drop_outside and view.is_outside(anno):
                reason = "moment outside the video"
            if reason is None:
                if odd := oddities(anno):
                    report.noted.update(odd)
                yield anno, num_words
            else:
                report.dropped[reason] += 1


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection: it would walk again and again over rows that hold no cycles."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def cache_folder() -> Path:
    """Where read annotations are kept: `$VIDEOMIND_CACHE`, else `~/.cache/videomind`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE_VARIABLE) or Path(home) / "videomind") / "annotations"


def _fingerprints(source: Source, split: str, filters: Filters) -> tuple[str, str]:
    """What the annotations are (a folder's name), and the state of all they are made of."""
    where = [str(source.data_root), str(source.data_root.resolve()), source.seed, asdict(filters)]
    label = "".join(c if c.isalnum() else "_" for c in f"{Path(source.name).stem}-{split}")
    slot = f"{label}-{_digest([source.name, split, *where])}"
    files = [[str(path), *_stat(path)] for path in source.inputs(split)]
    return slot, _digest([files, [_file_digest(path) for path in _code(type(source))]])


def _code(cls: type[Source]) -> list[Path]:
    """All files that make annotations: the source, its bases, the table's writing, what these import."""
    own = [inspect.getsourcefile(base) for base in cls.__mro__[:-1]]
    return reached_files([*(Path(path) for path in own if path is not None), Path(__file__)])


def _stat(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@cache
def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
