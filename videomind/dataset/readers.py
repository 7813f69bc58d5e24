"""Annotation files to rows, whatever their format.

Every reader names the file, and the line where there are lines, in its errors.
"""

import csv
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videomind.files import FileError, read_json, read_json_lines
from videomind.plain_pickle import PlainUnpickler


def read_rows(path: str | Path) -> Iterator[Any]:
    """Read the rows of a file by its extension.

    .jsonl yields one value per line, .txt one line without its end, .csv and .parquet one mapping per
    row, .json and .pkl the items of a list or the (key, value) pairs of a mapping in their order.

    Raises:
        FileError: it names the file, the line, and what is allowed.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise FileError(
            f"Cannot read annotations from {path}: unknown extension {path.suffix!r}. "
            f"Allowed: {', '.join(sorted(_READERS))}."
        )
    if not os.path.isfile(path):
        raise FileError(f"No annotation file {path}. See data/README.md for what goes where.")
    return _READERS[path.suffix](path)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read the lines of a text file that are not blank, with their numbers.

    Raises:
        FileError: it cannot be read, or is no text.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not a text file in UTF-8: {error}") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None


def _read_txt(path: Path) -> Iterator[str]:
    for _, line in read_lines(path):
        yield line


def _read_jsonl(path: Path) -> Iterator[Any]:
    return (value for _, value in read_json_lines(path))


def _read_json_rows(path: Path) -> Iterator[Any]:
    yield from _items(read_json(path), path)


def _items(value: Any, path: Path) -> Iterator[Any]:
    if not isinstance(value, list | dict):
        raise FileError(f"{path} holds a {type(value).__name__}, expected a list or a mapping")
    yield from value.items() if isinstance(value, dict) else value


def _read_csv(path: Path) -> Iterator[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            for row in rows:
                if None in row or None in row.values():
                    raise FileError(f"{path}, line {rows.line_num}, does not have the columns of the header")
                yield row
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not a text file in UTF-8: {error}") from None
    except csv.Error as error:
        raise FileError(f"{path}, after line {rows.line_num}, is not valid CSV: {error}") from None


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise FileError(f"{path} is not a Parquet file: {error}") from None


# What a damaged one can raise, besides what says so.
_PICKLE_ERRORS = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, OverflowError,
    MemoryError, SystemError, SyntaxError, RecursionError,
)  # fmt: skip


def read_pickle(path: str | Path) -> Any:
    """Unpickle plain containers, strings, numbers and numpy arrays; nothing else is built or run.

    Raises:
        FileError: it names the file and what it refers to.
    """
    try:
        with open(path, "rb") as file:
            return PlainUnpickler(file).load()
    except FileNotFoundError:
        raise FileError(f"No such file: {path}") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None
    except _PICKLE_ERRORS as error:
        raise FileError(
            f"{path} is refused: {str(error) or type(error).__name__}. A pickle may hold lists, tuples, "
            "mappings, strings, numbers and numpy arrays only."
        ) from None


def _read_pickle_rows(path: Path) -> Iterator[Any]:
    yield from _items(read_pickle(path), path)


_READERS = {
    ".json": _read_json_rows,
    ".jsonl": _read_jsonl,
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".pkl": _read_pickle_rows,
}
