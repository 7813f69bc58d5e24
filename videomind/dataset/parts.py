"""The parts of a training set: which annotations of which data set, and how often they count.

`--datasets` is a list of `NAME[@SPLIT][:WEIGHT]`, a name being a registered data set or the path of a file
of your own.
"""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tqdm import tqdm

from videomind.dataset.base import Source, get_source
from videomind.dataset.cache import Cache
from videomind.dataset.filters import ALL, Filters, Report
from videomind.dataset.own_data import OwnData
from videomind.dataset.schema import Annotation
from videomind.dataset.views import View
from videomind.logger import rank
from videomind.runs.cores import usable_cores

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One item of `--datasets`.

    Attributes:
        name: of a data set, or the path of a file.
        split: None is the training split.
        weight: how often the data set counts in an epoch.
    """

    name: str
    split: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """The annotations of one entry that train.

    Attributes:
        entry: what was asked for.
        split: the one that was read.
        view: what the role does with them.
        annotations: without what the filters left out.
        report: what reading and filtering left out and found odd.
    """

    entry: Entry
    split: str
    view: View
    annotations: Sequence[Annotation]
    report: Report

    def chosen(self, seed: int) -> list[Annotation]:
        """Take what a weight below 1 leaves of the annotations, at random; all of them otherwise."""
        if self.entry.weight >= 1:
            return list(self.annotations)
        indices = sorted(Random(seed).sample(range(len(self.annotations)), len(self)))
        return [self.annotations[i] for i in indices]

    def __len__(self) -> int:
        """Count the samples per epoch."""
        return max(round(self.entry.weight * len(self.annotations)), 1) if len(self.annotations) else 0


def parse_entries(datasets: str) -> list[Entry]:
    """Read `NAME[@SPLIT][:WEIGHT],...`.

    Raises:
        ValueError: an item is of another form; the message names it.
    """
    entries = [_entry(item.strip()) for item in _items(datasets) if item.strip()]
    if not entries:
        raise ValueError("No data set given (--datasets NAME[@SPLIT][:WEIGHT][,...])")
    return entries


def _items(datasets: str) -> Iterator[str]:
    """Split a list at its commas, but for those in the path of a file that is there."""
    parts = datasets.split(",")
    while parts:
        for count in range(len(parts), 0, -1):
            item = ",".join(parts[:count])
            name, weight = _named(item.strip())
            if count == 1 or (os.path.isfile(name) and "," not in weight):
                yield item
                del parts[:count]
                break


def _named(item: str) -> tuple[str, str]:
    """Split an item into its name, with a split, and its weight; a path may hold colons."""
    name, sign, weight = item.rpartition(":")
    name, weight = (item, "1") if not sign or is_file_name(item) else (name, weight)
    return os.path.expanduser(name) if is_file_name(name) else name, weight


def _entry(item: str) -> Entry:
    name, weight = _named(item)
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"The weight of {item!r} (--datasets) is not a positive number: {weight!r}")
    name, _, split = name.partition("@") if not is_file_name(name) else (name, "", "")
    return Entry(name=name.strip(), split=split.strip() or None, weight=value)


def is_file_name(name: str) -> bool:
    """Tell whether a data set's name is the path of a file."""
    return name.endswith((".jsonl", ".json"))


def open_source(name: str, data_root: str | Path = "data", *, seed: int = 42) -> Source:
    """Open a data set by its registered name or, for a file of your own, its path.

    Raises:
        ValueError: there is none of that name.
    """
    if is_file_name(name):
        return OwnData(name, data_root, seed=seed)
    return get_source(name, data_root, seed=seed)


def load_part(
    entry: Entry, *, data_root: str | Path = "data", filters: Filters = ALL, seed: int = 42
) -> Part:
    """Load an entry's annotations, from the cache where nothing they depend on has changed.

    Args:
        entry: which data set and split.
        data_root: folder of all data sets.
        filters: which annotations train.
        seed: of what sources draw at random.

    Raises:
        ValueError: a name, a file or a row is wrong; the message says where.
    """
    return _part(entry, _cache(entry, data_root, filters, seed))


def load_benchmark(entry: Entry, *, data_root: str | Path = "data") -> Part:
    """Load all that an evaluation predicts for.

    Raises:
        ValueError: as `load_part` does.
    """
    source = open_source(entry.name, data_root)
    loaded = source.to_predict(source.resolve_split(entry.split))
    return _warned(entry, loaded.split, source.view, loaded.annotations, loaded)


def _part(entry: Entry, cache: Cache) -> Part:
    annotations, report = cache.load()
    return _warned(entry, cache.split, cache.source.view, annotations, report)


def _warned(entry: Entry, split: str, view: View, annotations: Sequence[Annotation], report: Report) -> Part:
    """Make a part, after a warning of files that it should have come from."""
    for path in report.empty if rank() == 0 else ():
        log.warning("%s holds no row", path)
    return Part(entry=entry, split=split, view=view, annotations=annotations, report=report)


def load_parts(
    entries: Sequence[Entry], *, data_root: str | Path = "data", filters: Filters = ALL, seed: int = 42
) -> list[Part]:
    """Load several entries, as `load_part` does; those that are not in the cache are read side by side."""
    caches = [_cache(entry, data_root, filters, seed) for entry in entries]
    stale = [cache for cache in caches if not cache.is_fresh()]
    workers = min(len(stale), usable_cores())
    if workers > 1 and rank() == 0:  # other ranks wait for these at the files' locks
        stale.sort(key=Cache.size, reverse=True)
        with ProcessPoolExecutor(workers) as pool:
            done = pool.map(Cache.prepare, stale)
            for _ in tqdm(done, total=len(stale), desc="reading annotations", unit=" data sets", delay=2):
                pass
    return [_part(entry, cache) for entry, cache in zip(entries, caches, strict=True)]


def _cache(entry: Entry, data_root: str | Path, filters: Filters, seed: int) -> Cache:
    source = open_source(entry.name, data_root, seed=seed)
    return Cache(source, source.resolve_split(entry.split), filters)
