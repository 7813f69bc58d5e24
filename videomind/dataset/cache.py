"""The cache of annotations: read and filtered once, then mapped into memory by every process.

A slot holds one data set, split and set of filters. Each state has files of its own, which never change: its
name is made of all that the annotations depend on: their files, the code that reads them, and the videos that
are there where those decide. A state goes when another one is written and no process has it open.
"""

import gc
import hashlib
import inspect
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from videomind.dataset.base import Source
from videomind.dataset.filters import Filters, Report, oddities
from videomind.dataset.schema import Annotation
from videomind.dataset.table import AnnotationTable, remove_unused, write_table
from videomind.files import read_json, status_of, write_json
from videomind.imports import reached_files

CACHE_VARIABLE = "VIDEOMIND_CACHE"


class Cache:
    """The cached annotations of a split.

    Args:
        source: the data set.
        split: a declared one.
        filters: which annotations train.

    Raises:
        ValueError: the cache's folder cannot be written.
    """

    def __init__(self, source: Source, split: str, filters: Filters):
        self.source, self.split, self.filters = source, split, filters
        slot, state = _fingerprints(source, split, filters)
        folder = cache_folder() / slot
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        self.table = folder / f"{state}.arrow"
        self.report = folder / f"{state}.json"  # written last: it says that the table is whole

    def is_fresh(self) -> bool:
        """Say whether the annotations are there in their present state."""
        return self.report.is_file() and self.table.is_file()

    def size(self) -> int:
        """Count the bytes of the annotation files."""
        return sum(path.stat().st_size for path in self.source.files(self.split) if path.is_file())

    def prepare(self, shows: bool = False) -> None:
        """Read and write what is not fresh, one process at a time, with a progress bar if `shows`."""
        with self._locked():
            self._write_unless_fresh(shows)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time look and write; what others have prepared is read without.

        Raises:
            ValueError: the annotations are not there, and cannot be written.
        """
        with ExitStack() as ends:
            try:
                ends.enter_context(FileLock(self.table.parent / "lock"))
            except OSError as error:
                if not self.is_fresh():
                    raise _cannot_write(self.table.parent, error) from error
            yield

    def _write_unless_fresh(self, shows: bool) -> None:
        if self.is_fresh():
            return
        report = Report()
        with collection_paused():
            write_table(self.table, self._kept(report, shows))
        write_json(self.report, vars(report))
        self._remove_old_states()

    def _remove_old_states(self) -> None:
        """Remove the states that no process uses; a table that one has mapped must stay."""
        for table in self.table.parent.glob("*.arrow"):
            if table != self.table and remove_unused(table):
                table.with_suffix(".json").unlink(missing_ok=True)

    def load(self) -> tuple[AnnotationTable, Report]:
        """Give the annotations, and what reading and filtering left out."""
        with self._locked():  # until the table is open, and so in use
            self._write_unless_fresh(shows=True)
            report = read_json(self.report)
            counts = {name: Counter(report[name]) for name in ("skipped", "dropped", "noted")}
            return AnnotationTable(self.table), Report(**{**report, **counts})

    def _kept(self, report: Report, shows: bool) -> Iterator[tuple[Annotation, int]]:
        source, view = self.source, self.source.view
        rows = source.read_usable(self.split, report)
        for anno in tqdm(rows, desc=source.name, unit=" annotations", delay=2, disable=not shows):
            reason, num_words = self.filters.examine(anno, view)
            if reason is None and source.drop_outside and view.is_outside(anno):
                reason = "moment outside the video"
            if reason is None:
                if odd := oddities(anno):
                    report.noted.update(odd)
                yield anno, num_words
            else:
                report.dropped[reason] += 1


def _cannot_write(folder: Path, error: OSError) -> ValueError:
    return ValueError(
        f"Cannot write the cache of annotations to {folder.absolute()}: {error.strerror}. Name another "
        f"folder with the environment variable {CACHE_VARIABLE}."
    )


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause garbage collection: it would walk again and again over rows that hold no cycles."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def cache_folder() -> Path:
    """Say where read annotations are kept: `$VIDEOMIND_CACHE`, else `~/.cache/videomind`."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get(CACHE_VARIABLE) or f"{home}/videomind"
    return Path(folder).expanduser() / "annotations"


def _fingerprints(source: Source, split: str, filters: Filters) -> tuple[str, str]:
    """Tell what the annotations are (a folder's name), and the state of all they are made of."""
    where = [str(source.data_root), str(source.data_root.resolve()), source.seed, asdict(filters)]
    label = "".join(c if c.isalnum() else "_" for c in f"{Path(source.name).stem}-{split}")
    slot = f"{label}-{_digest([source.name, split, *where])}"
    files = [[str(path), *_stat(path)] for path in source.inputs(split)]
    return slot, _digest([files, [_file_digest(path) for path in _code(type(source))]])


def _code(cls: type[Source]) -> list[Path]:
    """List all files that make annotations: the source, its bases, the table's writing, what these import."""
    own = [inspect.getsourcefile(base) for base in cls.__mro__[:-1]]
    return reached_files([*(Path(path) for path in own if path is not None), Path(__file__)])


def _stat(path: Path) -> tuple[int, int]:
    stat = status_of(path)
    return (-1, -1) if stat is None else (stat.st_size, stat.st_mtime_ns)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@cache
def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
