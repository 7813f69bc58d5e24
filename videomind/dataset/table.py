"""Annotations on disk: an Arrow file that is mapped into memory, so that every process shares one copy.

Half a million annotations as Python objects would be copied into every loader worker, since counting
references writes to their pages. Here a worker builds only the one it is asked for.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

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
_LISTS_TOO = ("video_path", "task")  # text as a rule; their lists go to the rest
# Fields of several types as one JSON object.
_REST = "rest"
_REST_FIELDS = tuple(f.name for f in fields(Annotation) if f.name not in _COLUMNS)
NUM_WORDS = "num_words"
_SCHEMA = pa.schema({**_COLUMNS, _REST: pa.string(), NUM_WORDS: pa.int32()})


class AnnotationTable(Sequence[Annotation]):
    """The annotations of an Arrow file. Args: path, written by `write_table`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
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
        """All values of a numeric column that are set, flattened. Returns: (N,)."""
        values = [batch.column(column) for batch in self._batches]
        while values and pa.types.is_list(values[0].type):
            values = [part.flatten() for part in values]
        arrays = [part.drop_null().to_numpy(zero_copy_only=False) for part in values]
        return np.concatenate(arrays) if arrays else np.zeros(0)


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


def _record_batch(rows: Sequence[tuple[Annotation, int]]) -> pa.RecordBatch:
    typed, untyped = attrgetter(*_COLUMNS), attrgetter(*_REST_FIELDS)
    columns = dict(
        zip(_COLUMNS, map(list, zip(*(typed(anno) for anno, _ in rows), strict=True)), strict=True)
    )
    rest: list[dict[str, Any]] = [
        {name: value for name, value in zip(_REST_FIELDS, untyped(anno), strict=True) if value is not None}
        for anno, _ in rows
    ]
    for name in _LISTS_TOO:
        for i, value in enumerate(columns[name]):
            if isinstance(value, list):
                columns[name][i], rest[i][name] = None, value
    columns[_REST] = [json.dumps(values) if values else None for values in rest]
    columns[NUM_WORDS] = [words for _, words in rows]
    return pa.RecordBatch.from_pydict(columns, schema=_SCHEMA)
