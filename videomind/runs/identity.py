"""What a run's results depend on beside its arguments: a rerun goes on only where all of it is as it was.

Paths and counts do not tell a retrained checkpoint, corrected labels, or another copy of the videos.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from videomind.files import json_text

# The files of a model folder that loading reads; what else lies there (logs, predictions) may change.
MODEL_FILES = (
    "config.json", "*processor*", "tokenizer*", "vocab*", "merges.txt", "*_tokens*.json", "chat_template*",
    "*.safetensors", "*.bin", "*.index.json", "*/adapter_*",
)  # fmt: skip
SMALL = 1 << 20  # bytes: files up to this size are known by their content
SHOWN = 3  # names in a message
ABSOLUTE, RELATIVE = "absolute", "from the results"  # of `located`


def located(path: str | Path, folder: str | Path) -> dict[str, str]:
    """Say where something lies that results depend on, so that it may move together with the results.

    Args:
        path: of it, a file or a folder.
        folder: of the results.
    """
    real = os.path.realpath(path)
    return {ABSOLUTE: real, RELATIVE: os.path.relpath(real, os.path.realpath(folder))}


def files_of(path: str | Path, patterns: Iterable[str] = MODEL_FILES) -> dict[str, str]:
    """Describe the files that a model is loaded from.

    Args:
        path: a folder, or one file.
        patterns: of names below a folder.

    Returns:
        By name below the folder: the content's SHA-256 of small files, else size and time of change; of a
        file in the hub's cache, whose name there is a digest of its content, that name.
    """
    path = Path(path)
    if not path.is_dir():
        return {path.name: _known_by(path)}
    files = {file for pattern in patterns for file in path.glob(pattern) if file.is_file()}
    return {file.relative_to(path).as_posix(): _known_by(file) for file in sorted(files)}


def _known_by(file: Path) -> str:
    stat = file.stat()
    if stat.st_size <= SMALL:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    if file.is_symlink() and (blob := file.resolve()).parent.name == "blobs":
        return blob.name
    return f"{stat.st_size} bytes of {stat.st_mtime_ns} ns"


def digest_of(
    rows: Iterable[Mapping[str, Any]],
    *,
    paths: Iterable[str] = ("video_path",),
    roots: Iterable[str | Path] = (),
) -> str:
    """Digest what is asked, row by row; the spelling of paths makes no difference.

    Args:
        rows: as dictionaries that JSON can hold.
        paths: keys of paths, or of lists of paths.
        roots: folders; paths below the first that fits count by their place in it.
    """
    digest, paths, bases = hashlib.sha256(), tuple(paths), [os.path.realpath(root) for root in roots]
    for row in rows:
        spelt = {key: _spelt(row[key], bases) for key in paths if row.get(key) is not None}
        digest.update(json_text({**row, **spelt}, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _spelt(path: str | list[str], bases: Sequence[str]) -> str | list[str]:
    if isinstance(path, list):
        return [_spelt(one, bases) for one in path]
    folder, name = os.path.split(path)
    real = os.path.join(_real_folder(os.path.join(os.getcwd(), folder)), name)
    base = next((base for base in bases if real.startswith(base + os.sep)), None)
    return real if base is None else os.path.relpath(real, base)


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Say in which settings two runs differ, a phrase each.

    Args:
        stored: of the run that made the results.
        current: of this one.
    """
    phrases = []
    for name in sorted(stored.keys() | current.keys()):
        old, new = stored.get(name), current.get(name)
        if old == new or _is_one_place(old, new):
            continue
        if _is_place(old) and _is_place(new):
            phrases.append(f"{name} was {old[ABSOLUTE]}, is {new[ABSOLUTE]}")
        elif isinstance(old, dict) and isinstance(new, dict):
            changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            phrases.append(f"{name}: {', '.join(changed[:SHOWN])}{more} changed")
        elif _is_digest(old) and _is_digest(new):
            phrases.append(f"{name} changed")
        else:
            phrases.append(f"{name} was {old!r}, is {new!r}")
    return phrases


def _is_place(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {ABSOLUTE, RELATIVE}


def _is_one_place(old: Any, new: Any) -> bool:
    return _is_place(old) and _is_place(new) and any(old[key] == new[key] for key in (ABSOLUTE, RELATIVE))


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == hashlib.sha256().digest_size * 2
