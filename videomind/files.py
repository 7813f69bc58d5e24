"""Small files read with clear errors and written atomically."""

import codecs
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

EXCERPT = 20  # characters of a file that an error shows


class FileError(ValueError):
    """A file that cannot be used; the message says which one, and why."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends without an error.

    The content is on disk before the name changes, so a reader (or a rerun after a crash) sees the old
    file or the whole new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically, indented, keys sorted."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        FileError: it is not there or no JSON; the message names the file and the place that is wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileError(f"No such file: {path}") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not a text file in UTF-8: {error}") from None
    return parse_json(text, path)


def parse_json(text: str, path: Path, *, first_line: int = 1) -> Any:
    """Parse JSON that was read from a file.

    Args:
        text: one JSON value.
        path: where it is from, for messages.
        first_line: number of its first line in the file.

    Raises:
        FileError: it is no JSON; names file, line and column, and shows what stands there.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = _mistake(text, error.pos)
        line = first_line + text.count("\n", 0, place)
        column = place - text.rfind("\n", 0, place)
        found = repr(text[place : place + EXCERPT]) if place < len(text) else "the end"
        raise FileError(f"{path}, line {line}, is not valid JSON: column {column}, at {found}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise FileError(f"{path}, line {first_line}, holds JSON that cannot be read: {error}") from None


def _mistake(text: str, place: int) -> int:
    """Where JSON goes wrong, whatever Python's version.

    Of a comma too many before a closing bracket, 3.13 and later name the comma, earlier ones the bracket.
    """
    before = text[:place].rstrip()
    return len(before) - 1 if text[place : place + 1] in ("]", "}") and before.endswith(",") else place


_BYTE_ORDER_MARKS = (  # the longer of two that begin alike comes first
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
FALLBACK_ENCODING = "cp1252"  # of Windows in western Europe and America


def read_foreign_text(path: str | Path) -> tuple[str, str]:
    """Read a text file that others wrote, in an encoding that nobody says.

    That of its byte-order mark counts, else UTF-8, else Windows-1252.

    Returns:
        The text and the encoding.

    Raises:
        FileError: it cannot be read, or is in none of them.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    marked = [name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)]
    for encoding in marked[:1] or ("utf-8", FALLBACK_ENCODING):
        with suppress(UnicodeDecodeError):
            return data.decode(encoding), encoding
    raise FileError(f"{path} is no text in {marked[0] if marked else f'UTF-8 or {FALLBACK_ENCODING}'}")


def labelled_paths(runs: Sequence[str]) -> dict[str, Path]:
    """Split LABEL=PATH arguments. Raises: ValueError for one of another form."""
    pairs = [run.partition("=") for run in runs]
    if wrong := [label for label, sign, _ in pairs if not sign]:
        raise ValueError(f"{wrong[0]!r} is not of the form LABEL=PATH")
    return {label: Path(path) for label, _, path in pairs}
