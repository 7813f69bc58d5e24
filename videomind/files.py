"""Small files read with clear errors and written atomically, and how one finds another that it names."""

import codecs
import errno
import json
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from videomind.faults import write_errno

log = logging.getLogger(__name__)

Named = TypeVar("Named", str, list[str], None)  # a file, or several, or none
SHOWN = 20  # characters of a file that an error shows
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class FileError(ValueError):
    """A file that cannot be used; the message says which one, and why."""


class NamedFile:
    """A block in which errors of the system name a file, absolutely; those of writing mostly name none.

    Args:
        path: of the file.
        temporary: what it is meanwhile called, a file or a folder.

    Raises:
        OSError: as the block raised it, with a name.
    """

    def __init__(self, path: str | Path, *, temporary: str | Path | None = None):
        self._path, self._temporary = Path(path), temporary

    def __enter__(self) -> "NamedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        number = None if error is None else write_errno(error)
        if number is None:
            return
        name = getattr(error, "filename2", None) or getattr(error, "filename", None)  # of two where to
        path = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else self._path
        if self._temporary is not None and Path(self._temporary) in (path, *path.parents):
            path = self._path
        reason = getattr(error, "strerror", None) or os.strerror(number)
        raise OSError(number, reason, str(path.absolute())) from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it when the block ends without an error.

    The content is on disk before the name changes, so a reader (or a rerun after a crash) sees the old
    file or the whole new one. Its permissions are those of any new file there, which follow the umask, also
    where a library puts a private file of its own (as safetensors does) in place of the temporary one.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with NamedFile(path, temporary=temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        try:
            permissions = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(permissions)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_files(folder: str | Path, *, replaces: str | None = None) -> Iterator[Path]:
    """Give a temporary folder whose files become files of `folder` when the block ends without an error.

    For libraries that choose the names themselves. Each file is then as if written through `atomic_path`.

    Args:
        folder: where they go; what else it holds stays.
        replaces: a pattern; files there that match it and were not written anew are deleted in the end.
    """
    folder = Path(folder)
    with NamedFile(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary_folder = tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".tmp")
    with temporary_folder as name:
        with NamedFile(folder, temporary=name):
            yield Path(name)
        written = sorted(Path(name).iterdir())
        for path in written:
            with atomic_path(folder / path.name) as temporary:
                path.replace(temporary)
    for old in folder.glob(replaces) if replaces else ():
        if old.name not in {path.name for path in written}:
            old.unlink()


def copy_file(source: str | Path, path: str | Path) -> None:
    """Copy a file's content atomically; the permissions are a new file's. Onto itself nothing is done."""
    with NamedFile(path):
        if Path(path).exists() and os.path.samefile(source, path):
            return
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically; half of a surrogate pair, which UTF-8 lacks, as its escape."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def json_text(value: Any, **layout: Any) -> str:
    """Write JSON as a text that UTF-8 can hold.

    Args:
        value: anything JSON has.
        layout: of `json.dumps`.
    """
    text = json.dumps(value, ensure_ascii=False, **layout)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as damaged annotations hold: an escape can say it
        return json.dumps(value, **layout)
    return text


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically, indented, keys sorted."""
    write_text(path, json_text(value, indent=2, sort_keys=True) + "\n")


def write_json_lines(path: str | Path, values: Iterable[Any]) -> None:
    """Write a .jsonl file atomically."""
    write_text(path, "".join(json_text(value) + "\n" for value in values))


def append_json_line(path: str | Path, value: Any) -> None:
    """Add a line to a .jsonl file; it is on disk afterwards. A line that a kill cut short stays by itself."""
    path = Path(path)
    with NamedFile(path):
        _append(path, json_text(value).encode() + b"\n")


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_json_lines(path: str | Path, *, skip_cut: bool = False) -> Iterator[tuple[int, Any]]:
    """Read the lines of a .jsonl file that are not blank.

    A line ends at a line feed alone. U+2028, U+0085 and whatever else Python splits a text at may stand in
    a JSON string as they are.

    Args:
        path: the file.
        skip_cut: leave lines out that are no JSON, as those that a kill cut short.

    Yields:
        Number of the line and its value.

    Raises:
        FileError: the file cannot be read, or a line is no JSON; names file and line.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                line = line.removeprefix(codecs.BOM_UTF8)  # of the file, or of one that was joined to it
                if not line.strip():
                    continue
                try:
                    value = _parse_line(line, path, number)
                except ValueError as error:
                    if not skip_cut:
                        raise
                    log.info("Left out a line that was cut short: %s", error)
                    continue
                yield number, value
    except FileNotFoundError:
        raise FileError(f"No such file: {path}") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None


def _parse_line(line: bytes, path: Path, number: int) -> Any:
    try:
        text = line.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not a text file in UTF-8: line {number}: {error}") from None
    return parse_json(text, path, first_line=number)


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
        offset = _mistake(text, error.pos)
        line = first_line + text.count("\n", 0, offset)
        column = offset - text.rfind("\n", 0, offset)
        shown = repr(text[offset : offset + SHOWN]) if offset < len(text) else "the end"
        raise FileError(f"{path}, line {line}, is not valid JSON: column {column}, at {shown}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise FileError(f"{path}, line {first_line}, holds JSON that cannot be read: {error}") from None


def _mistake(text: str, offset: int) -> int:
    """Find where JSON goes wrong, whatever Python's version.

    Of a comma too many before a closing bracket, 3.13 and later name the comma, earlier ones the bracket.
    """
    before = text[:offset].rstrip()
    return len(before) - 1 if text[offset : offset + 1] in ("]", "}") and before.endswith(",") else offset


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


def status_of(path: str | Path) -> os.stat_result | None:
    """Ask for the status of a file or folder; None where none is there, or can be by that name.

    Raises:
        OSError: the disk does not tell.
    """
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
    except ValueError:  # a zero byte, half a surrogate pair
        pass
    return None


def labelled_paths(runs: Sequence[str]) -> dict[str, Path]:
    """Split LABEL=PATH arguments.

    Raises:
        ValueError: one has another form.
    """
    pairs = [run.partition("=") for run in runs]
    if wrong := [label for label, sign, _ in pairs if not sign]:
        raise ValueError(f"{wrong[0]!r} is not of the form LABEL=PATH")
    return {label: Path(path).expanduser() for label, _, path in pairs}


def found_from(folder: str | Path, path: Named) -> Named:
    """Find a file, or several, that another one names.

    Args:
        folder: that the other one lies in; of it and the folders above it the first counts below which the
            path's folder is, else the one where the command runs.
        path: as it is written there.
    """
    return in_each(lambda name: _found(os.path.abspath(folder), name), path)


def written_from(folder: str | Path, path: Named) -> Named:
    """Write a path so that `found_from` finds the file, also after all has been moved together."""
    return in_each(lambda name: os.path.relpath(os.path.abspath(name), os.path.abspath(folder)), path)


def in_each(change: Callable[[str], str], path: Named) -> Named:
    """Change a path, or each of a list; what is neither stays."""
    if isinstance(path, list):
        return [in_each(change, name) for name in path]
    return change(path) if isinstance(path, str) and path else path


def _found(folder: str, path: str) -> str:
    parent, name = os.path.split(path)
    base = None if os.path.isabs(path) else _base_of(folder, parent, "" if parent else name)
    return path if base is None else os.path.join(base, path)


@lru_cache(maxsize=4096)
def _base_of(folder: str, parent: str, name: str) -> str | None:
    """Find the folder that a path starts from; a bare name has to be in the first one itself."""
    if not parent:
        return folder if os.path.exists(os.path.join(folder, name)) else None
    bases = map(str, (Path(folder), *Path(folder).parents))
    return next((base for base in bases if os.path.isdir(os.path.join(base, parent))), None)
