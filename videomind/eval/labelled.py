"""The runs that are compared, by data set and label."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from videomind.eval.records import Run, find_runs
from videomind.prediction import UNKNOWN

log = logging.getLogger(__name__)

_Key = tuple[str, str | None]  # data set and split


def labelled_runs(paths: Mapping[str, Path]) -> dict[str, dict[str, Run]]:
    """Find what is compared.

    Args:
        paths: label to a file of predictions, or a folder with runs of several data sets below it.

    Returns:
        Data set to label to run. Where several splits of a data set are there, each stands for itself.

    Raises:
        ValueError: there are no predictions, or two runs of the same data set and split side by side.
    """
    found = {label: _one_of_each(path) for label, path in paths.items()}
    keys = sorted({key for runs in found.values() for key in runs}, key=lambda key: (key[0], key[1] or ""))
    table: dict[str, dict[str, Run]] = {}
    for label, runs in found.items():
        for key, run in runs.items():
            table.setdefault(_name(key, keys), {})[label] = run
    return table


def _one_of_each(path: Path) -> dict[_Key, Run]:
    """Find the runs below a path. Of one within another of the same split the outer one counts."""
    runs: dict[_Key, Run] = {}
    for run in sorted(find_runs(path), key=lambda run: len(run.path.parts)):
        sources = sorted({prediction.source for prediction in run.predictions}) or [run.folder.name]
        key = (", ".join(sources), run.split.split if run.split else None)
        outer = runs.setdefault(key, run)
        if outer is run:
            continue
        if outer.folder not in run.folder.parents:
            what = " ".join(filter(None, key))
            raise ValueError(f"{outer.path} and {run.path} are both predictions of {what}: name one of them")
        log.warning("%s is left out: it lies within the run of %s", run.path, outer.path)
    return runs


def _name(key: _Key, keys: Sequence[_Key]) -> str:
    """Name a data set: with its split only where others of its splits are there."""
    source, split = key
    several = sum(other == source for other, _ in keys) > 1
    return f"{source} {split or UNKNOWN}" if several else source
