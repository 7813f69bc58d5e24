"""Prediction files: the records of a run, and the runs below folders that are compared."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from videomind.files import read_json, read_json_lines
from videomind.prediction import (
    RESULT,
    SETTINGS,
    SPLIT_FILE,
    UNKNOWN,
    PredictedSplit,
    Prediction,
    read_predictions,
)

_Key = tuple[str, str | None]  # data set and split
SUFFIXES = (".json", ".jsonl")
CHUNK_PREFIX = "output"  # of the files that inference writes
METRICS = "metrics.json"
UNFINISHED = f"the run is not finished, it has no {RESULT}; the command that started it goes on with it"
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Records:
    """Rows read from files.

    Attributes:
        rows: JSON objects.
        origins: where each stands, for messages.
        files: which were read.
    """

    rows: list[dict]
    origins: list[str]
    files: list[Path]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The predictions of one run.

    Attributes:
        path: the file or folder that was asked for.
        predictions: in the order of the files.
        origins: where each stands, for messages.
        files: which were read.
        split: what was predicted, None where no file says it.
    """

    path: Path
    predictions: list[Prediction]
    origins: list[str]
    files: list[Path]
    split: PredictedSplit | None

    @property
    def num_failed(self) -> int:
        """How many samples failed."""
        return sum(prediction.error is not None for prediction in self.predictions)

    @property
    def folder(self) -> Path:
        """Where what is found out about the run is written."""
        return self.path if self.path.is_dir() else self.path.parent


def read_records(path: Path, *, report_name: str = METRICS) -> Records:
    """Read prediction records or annotations.

    Args:
        path: a .json or .jsonl file, or a folder of them.
        report_name: a file in the folder to ignore.

    Raises:
        ValueError: there is none, or it holds something else; names file and line.
    """
    rows, origins = [], []
    files = _prediction_files(path, report_name)
    for file in files:
        placed = _read_lines(file) if file.suffix == ".jsonl" else _read_list(file)
        for origin, row in placed:
            if not isinstance(row, dict):
                raise ValueError(f"{origin}: a JSON {type(row).__name__}, expected a record ({{...}})")
            origins.append(origin)
            rows.append(row)
    return Records(rows=rows, origins=origins, files=files)


def read_run(path: Path, *, report_name: str = METRICS) -> Run:
    """Read the predictions of a run.

    Args:
        path: a .json or .jsonl file, or a folder with the chunks of a run.
        report_name: a file in the folder to ignore.

    Raises:
        ValueError: there are none, or a record has another form; names file and line.
    """
    records = read_records(path, report_name=report_name)
    predictions = read_predictions(zip(records.origins, records.rows, strict=True))
    split = PredictedSplit.read(path if path.is_dir() else path.parent)
    return Run(path=path, predictions=predictions, origins=records.origins, files=records.files, split=split)


def find_runs(path: Path) -> list[Run]:
    """Read all runs below a folder, or the one of a file.

    Raises:
        ValueError: there are none.
    """
    files = [path] if path.is_file() else sorted(path.glob(f"**/{RESULT}"))
    for split in sorted(path.glob(f"**/{SPLIT_FILE}")):
        if is_unfinished(split.parent):
            log.warning("%s is left out: %s", split.parent, UNFINISHED)
    if not files:
        raise ValueError(f"No predictions ({RESULT}) below {path}")
    return [read_run(file) for file in files]


def is_unfinished(folder: Path) -> bool:
    """Tell whether a folder holds a run whose predictions are not merged yet."""
    return (folder / SPLIT_FILE).is_file() and not (folder / RESULT).is_file()


def labelled_runs(paths: Mapping[str, Path]) -> dict[str, dict[str, Run]]:
    """Find what is compared.

    Args:
        paths: label to a file of predictions, or a folder with runs of several data sets below it.

    Returns:
        Data set to label to run. Where several splits of a data set are there, each stands for itself.

    Raises:
        ValueError: there are no predictions, or two runs of the same data set and split side by side.
    """
    labelled = {label: _one_of_each(path) for label, path in paths.items()}
    keys = sorted({key for runs in labelled.values() for key in runs}, key=lambda key: (key[0], key[1] or ""))
    table: dict[str, dict[str, Run]] = {}
    for label, runs in labelled.items():
        for key, run in runs.items():
            table.setdefault(_name(key, keys), {})[label] = run
    return table


def _read_lines(path: Path) -> list[tuple[str, object]]:
    return [(f"{path}:{number}", row) for number, row in read_json_lines(path)]


def _read_list(path: Path) -> list[tuple[str, object]]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: holds a JSON {type(rows).__name__}, expected a list of records")
    return [(f"{path}, record {i}", row) for i, row in enumerate(rows)]


def _prediction_files(path: Path, report_name: str) -> list[Path]:
    """List the file itself, or a folder's chunks (else its JSON files but those about the run)."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: no such file or folder")
    if is_unfinished(path):
        raise ValueError(f"{path}: {UNFINISHED}")
    others = {report_name, METRICS, SPLIT_FILE, SETTINGS}
    files = sorted(f for f in path.iterdir() if f.suffix in SUFFIXES and f.name not in others)
    files = [f for f in files if f.name.startswith(CHUNK_PREFIX)] or files
    if not files:
        raise ValueError(f"{path}: no prediction file in this folder (looked for {', '.join(SUFFIXES)})")
    return files


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
