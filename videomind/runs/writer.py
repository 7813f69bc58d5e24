"""One writer per folder: a second run of the same output folder is refused, with who writes there."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from videomind.files import read_json, write_json

LOCK, HOLDER = ".writer.lock", ".writer.json"  # in the folder
# A run that was killed a moment ago still has processes that hold its lock until they notice.
PATIENCE_S = 15.0


@contextmanager
def only_writer(folder: Path, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold a folder while a block runs. What a killed run held is free: the system lets go of it.

    Args:
        folder: made where it is not there.
        patience_s: how long to wait for another run's end.

    Raises:
        ValueError: Another run writes there; names host, process and start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=patience_s)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder.absolute()} is written by another run, {_holder(folder)}") from None
    holder = {"host": socket.gethostname(), "process": os.getpid()}
    try:
        write_json(folder / HOLDER, holder | {"since": datetime.now().isoformat(" ", "seconds")})
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()  # the file stays: to delete it would let two runs lock two files of that name


def _holder(folder: Path) -> str:
    """Say who holds a folder."""
    with suppress(OSError, json.JSONDecodeError, KeyError):
        holder = read_json(folder / HOLDER)
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    return "which has not said its name yet"
