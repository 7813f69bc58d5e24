"""The parts of a training set: which annotations of which data set, filtered, cached on disk.

`--datasets` is a list of `NAME[@SPLIT][:WEIGHT]`, a name being a registered data set or the path of a file
of your own.
"""

import hashlib
import inspect
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from videomind.dataset.base import VIDEO_MISSING, Report, Source, get_source, oddities
from videomind.dataset.own_data import OwnData
from videomind.dataset.schema import Annotation
from videomind.dataset.table import AnnotationTable, write_table
from videomind.dataset.views import View
from videomind.files import read_json, write_json

log = logging.getLogger(__name__)
CACHE_VARIABLE = "VIDEOMIND_CACHE"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One item of `--datasets`. Attributes: name; split, None for the training split; weight, how often
    the data set counts in an epoch."""

    name: str
    split: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which annotations train; bounds are inclusive, -1 is off.

    Attributes: video length in s (annotations without a duration pass), words of the view's text.
    """

    min_video_len: float = -1
    max_video_len: float = -1
    min_num_words: int = -1
    max_num_words: int = -1

    def reason(self, anno: Annotation, view: View) -> str | None:
        """Why an annotation does not train, or None."""
        if problem := view.problem(anno):
            return problem
        if anno.duration is not None and not _within(anno.duration, self.min_video_len, self.max_video_len):
            return "video length"
        if not _within(view.num_words(anno), self.min_num_words, self.max_num_words):
            return "number of words"
        return None


ALL = Filters()


def _within(value: float, low: float, high: float) -> bool:
    return (low < 0 or value >= low) and (high < 0 or value <= high)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The annotations of one entry that train.

    Attributes: report, what reading and filtering left out and found odd.
    """

    entry: Entry
    split: str
    view: View
    annotations: Sequence[Annotation]
    report: Report

    def __len__(self) -> int:
        """Samples per epoch."""
        return max(round(self.entry.weight * len(self.annotations)), 1) if len(self.annotations) else 0


def parse_entries(datasets: str) -> list[Entry]:
    """Read `NAME[@SPLIT][:WEIGHT],...`. Raises: ValueError that names the item."""
    entries = [_entry(item.strip()) for item in datasets.split(",") if item.strip()]
    if not entries:
        raise ValueError("No data set given (--datasets NAME[@SPLIT][:WEIGHT][,...])")
    return entries


def _entry(item: str) -> Entry:
    name, _, weight = item.rpartition(":") if ":" in item else (item, "", "1")
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"The weight of {item!r} (--datasets) is not a positive number: {weight!r}")
    name, _, split = name.partition("@") if not is_file_name(name) else (name, "", "")
    return Entry(name=name.strip(), split=split.strip() or None, weight=value)


def is_file_name(name: str) -> bool:
    """Whether a data set's name is the path of a file."""
    return name.endswith((".jsonl", ".json"))


def open_source(name: str, data_root: str | Path = "data", *, seed: int = 42) -> Source:
    """A data set by its registered name or, for a file of your own, its path. Raises: ValueError."""
    if is_file_name(name):
        return OwnData(name, data_root, seed=seed)
    return get_source(name, data_root, seed=seed)


def load_part(
    entry: Entry, *, data_root: str | Path = "data", filters: Filters = ALL, seed: int = 42
) -> Part:
    """Load an entry's annotations, from the cache where nothing they depend on has changed.

    Args: seed, of what sources draw at random.
    Raises: ValueError.
    """
    source = open_source(entry.name, data_root, seed=seed)
    split = source.resolve_split(entry.split)
    slot, state = _fingerprints(source, split, filters)
    folder = cache_folder() / slot
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"Cannot write the cache of annotations to {folder}: {error.strerror}. Name another folder with "
            f"the environment variable {CACHE_VARIABLE}."
        ) from error
    table = folder / f"{state}.arrow"
    with FileLock(folder / "lock"):
        if not _is_fresh(table, source):
            _build(source, split, filters, table)
        annotations = AnnotationTable(table)
        report = _read_report(table)
    return Part(entry=entry, split=split, view=source.view, annotations=annotations, report=report)


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
    code = [inspect.getsourcefile(cls) or "" for cls in type(source).__mro__[:-1]]
    return slot, _digest([files, [_file_digest(path) for path in dict.fromkeys(code)], _package_digest()])


def _stat(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _file_digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""


@cache
def _package_digest() -> str:
    return _digest([_file_digest(str(path)) for path in sorted(Path(__file__).parent.glob("*.py"))])


def _is_fresh(table: Path, source: Source) -> bool:
    marker = table.with_suffix(".json")
    if not marker.is_file():
        return False
    # The state of a video folder is part of the name; that of single files is not.
    return source.only_present or not read_json(marker)["dropped"].get(VIDEO_MISSING)


def _read_report(table: Path) -> Report:
    report = read_json(table.with_suffix(".json"))
    return Report(
        num_rows=report["num_rows"], dropped=Counter(report["dropped"]), noted=Counter(report["noted"])
    )


def _build(source: Source, split: str, filters: Filters, table: Path) -> None:
    """Read, filter and write; the report beside the table says that it is whole."""
    for old in (*table.parent.glob("*.json"), *table.parent.glob("*.arrow")):
        old.unlink()
    report = Report()
    write_table(table, _kept(source, split, filters, report))
    write_json(table.with_suffix(".json"), vars(report))


def _kept(source: Source, split: str, filters: Filters, report: Report) -> Iterator[tuple[Annotation, int]]:
    rows = tqdm(source.read(split, report), desc=source.name, unit=" annotations", delay=2)
    for anno in rows:
        reason = filters.reason(anno, source.view)
        if reason is None and source.drop_outside and source.view.is_outside(anno):
            reason = "moment outside the video"
        if reason is None:
            report.noted.update(oddities(anno))
            yield anno, source.view.num_words(anno)
        else:
            report.dropped[reason] += 1
