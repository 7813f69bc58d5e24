"""Annotation files to rows, whatever their format, and the clean-up of their text.

Every reader yields rows lazily and names the file and the line in its errors.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videomind.files import read_json


def read_rows(path: str | Path) -> Iterator[Any]:
    """Rows of a file by its extension.

    .jsonl yields one value per line, .txt one line without its end, .json the items of a list or the
    (key, value) pairs of a mapping in their order.

    Raises: ValueError that names the file, the line, and what is allowed.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise ValueError(
            f"Cannot read annotations from {path}: unknown extension {path.suffix!r}. "
            f"Allowed: {', '.join(sorted(_READERS))}."
        )
    if not path.is_file():
        raise ValueError(f"No annotation file {path}. See data/README.md for what goes where.")
    return _READERS[path.suffix](path)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _read_txt(path: Path) -> Iterator[str]:
    for _, line in _lines(path):
        yield line


def _read_jsonl(path: Path) -> Iterator[Any]:
    for number, line in _lines(path):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}, is not valid JSON: {error}") from None


def _read_json_rows(path: Path) -> Iterator[Any]:
    value = read_json(path)
    if not isinstance(value, list | dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected a list or a mapping")
    yield from value.items() if isinstance(value, dict) else value


_READERS = {".json": _read_json_rows, ".jsonl": _read_jsonl, ".txt": _read_txt}


def clean_question(text: str) -> str:
    """Collapse white space and trim."""
    return " ".join(text.split())


def clean_query(text: str) -> str:
    """Collapse white space, trim, and strip dots from both ends."""
    return clean_question(text).strip(".").strip()
