"""Annotations on disk: an Arrow file that is mapped into memory, so that every process shares one copy.

Half a million annotations as Python objects would be copied into every loader worker, since counting
references writes to their pages. Here a worker builds only the one it is asked for.
"""

import fcntl
import json
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from videomind.dataset.schema import Annotation
from videomind.files import atomic_path

BATCH_ROWS = 4096
_SPAN = pa.list_(pa.float64())
_TEXTS = (
    "source",
    "data_type",
    "video_path",
    "task",
    "query",
    "question",
    "answer",
    "ans",
    "uid",
    "subtitle_path",
    "domain",
)
_COLUMNS = {
    **dict.fromkeys(_TEXTS, pa.string()),
    "duration": pa.float64(),
    "options": pa.list_(pa.string()),
    "span": pa.list_(_SPAN),
    "pred": _SPAN,
    "no_aug": pa.bool_(),
    "positive": pa.bool_(),
    "route": pa.int64(),
}
# Text as a rule; lists, and the names of files that are no UTF-8, go to the rest.
_NOT_ALWAYS_TEXT = ("video_path", "subtitle_path", "task")
# Fields of several types as one JSON object.
_REST = "rest"
_REST_FIELDS = tuple(f.name for f in fields(Annotation) if f.name not in _COLUMNS)
NUM_WORDS = "num_words"
_SCHEMA = pa.schema({**_COLUMNS, _REST: pa.string(), NUM_WORDS: pa.int32()})


class AnnotationTable(Sequence[Annotation]):
    """The annotations of an Arrow file.

    Args:
        path: written by `write_table`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        weakref.finalize(self, _marked_in_use(self.path).close)
        options = pa.ipc.IpcReadOptions(use_threads=False)
        reader = pa.ipc.open_file(pa.memory_map(str(path)), options=options)
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._length = sum(batch.num_rows for batch in self._batches)  # all but the last are full

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return AnnotationTable, (self.path,)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Annotation:
        if not 0 <= index < self._length:
            raise IndexError(f"No annotation {index} among {self._length} of {self.path}")
        batch = self._batches[index // BATCH_ROWS]
        row = {name: batch.column(name)[index % BATCH_ROWS].as_py() for name in (*_COLUMNS, _REST)}
        rest = row.pop(_REST)
        return Annotation(**({**row, **json.loads(rest)} if rest else row))

    def numbers(self, column: str) -> np.ndarray:
        """Collect all values of a numeric column that are set, flattened.

        Returns:
            (N,).
        """
        values = [batch.column(column) for batch in self._batches]
        while values and pa.types.is_list(values[0].type):
            values = [part.flatten() for part in values]
        arrays = [part.drop_null().to_numpy(zero_copy_only=False) for part in values]
        return np.concatenate(arrays) if arrays else np.zeros(0)

    def videos(self) -> set[tuple[str, ...]]:
        """Collect the different videos, each as its file, or its images."""
        columns = (batch.column("video_path") for batch in self._batches)
        videos = {(path,) for column in columns for path in column.unique().to_pylist() if path is not None}
        for batch in self._batches:
            rest = batch.column(_REST).drop_null().to_pylist()
            paths = (json.loads(values).get("video_path") for values in rest if '"video_path"' in values)
            named = ([path] if isinstance(path, str) else path for path in paths if path is not None)
            videos |= set(map(tuple, named))
        return videos


def _marked_in_use(path: Path) -> BinaryIO:
    """Open a file under a lock that several readers can hold, until each has closed it or ended."""
    file = open(path, "rb")  # noqa: SIM115  (open as long as the table is)
    with suppress(OSError):  # a file system without locks, where nothing is removed either
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return file


def remove_unused(path: Path) -> bool:
    """Remove a table unless a process, of whatever run, has it open.

    On a network file system a mapped file that is removed takes its readers with it.

    Returns:
        Whether it is gone.
    """
    with open(path, "r+b") as file:  # network file systems give this lock to writers only
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # it is in use, or there are no locks to tell by
            return False
        path.unlink(missing_ok=True)
    return True


def write_table(path: str | Path, rows: Iterable[tuple[Annotation, int]]) -> None:
    """Write annotations, each with the number of words of its text, to an Arrow file, atomically."""
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        rows = iter(rows)
        while batch := list(islice(rows, BATCH_ROWS)):
            writer.write_batch(_record_batch(batch))


def _is_plain(value: str | list[str]) -> bool:
    """Tell whether a value is a text that a column holds."""
    if not isinstance(value, str):
        return False
    return value.isascii() or value == value.encode(errors="ignore").decode()


def _record_batch(rows: Sequence[tuple[Annotation, int]]) -> pa.RecordBatch:
    typed, untyped = attrgetter(*_COLUMNS), attrgetter(*_REST_FIELDS)
    columns = dict(
        zip(_COLUMNS, map(list, zip(*(typed(anno) for anno, _ in rows), strict=True)), strict=True)
    )
    rest: list[dict[str, Any]] = [
        {name: value for name, value in zip(_REST_FIELDS, untyped(anno), strict=True) if value is not None}
        for anno, _ in rows
    ]
    for name in _NOT_ALWAYS_TEXT:
        for i, value in enumerate(columns[name]):
            if value is not None and not _is_plain(value):
                columns[name][i], rest[i][name] = None, value
    columns[_REST] = [json.dumps(values) if values else None for values in rest]
    columns[NUM_WORDS] = [words for _, words in rows]
    return pa.RecordBatch.from_pydict(columns, schema=_SCHEMA)
