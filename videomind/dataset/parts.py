"""The parts of a training set: which annotations of which data set, and how often they count.

`--datasets` is a list of `NAME[@SPLIT][:WEIGHT]`, a name being a registered data set or the path of a file
of your own.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tqdm import tqdm

from videomind.cores import usable_cores
from videomind.dataset.base import Report, Source, get_source
from videomind.dataset.cache import Cache
from videomind.dataset.filters import ALL, Filters
from videomind.dataset.own_data import OwnData
from videomind.dataset.schema import Annotation
from videomind.dataset.views import View
from videomind.logger import rank


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One item of `--datasets`. Attributes: name; split, None for the training split; weight, how often
    the data set counts in an epoch."""

    name: str
    split: str | None = None
    weight: float = 1.0


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

    def chosen(self, seed: int) -> list[Annotation]:
        """What a weight below 1 takes of the annotations, at random; all of them otherwise."""
        if self.entry.weight >= 1:
            return list(self.annotations)
        places = sorted(Random(seed).sample(range(len(self.annotations)), len(self)))
        return [self.annotations[i] for i in places]

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
    return _part(entry, _cache(entry, data_root, filters, seed))


def _part(entry: Entry, cache: Cache) -> Part:
    annotations, report = cache.load()
    return Part(
        entry=entry, split=cache.split, view=cache.source.view, annotations=annotations, report=report
    )


def load_parts(
    entries: Sequence[Entry], *, data_root: str | Path = "data", filters: Filters = ALL, seed: int = 42
) -> list[Part]:
    """Load several entries; those that are not in the cache are read side by side. Raises: ValueError."""
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
