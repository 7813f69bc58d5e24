"""A machine's faults without breaking it: no room for files, folders that may not be written."""

import ctypes
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OVERRIDES = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of linux/capability.h
_VERSION_3 = 0x20080522


@contextmanager
def no_room(num_bytes: int = 4096) -> Iterator[None]:
    """No file may become longer than some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@contextmanager
def closed(folder: Path, mode: int = 0o500) -> Iterator[None]:
    """A folder may not be written, by root neither."""
    permissions = folder.stat().st_mode
    folder.chmod(mode)
    try:
        with _as_permissions_say():
            yield
    finally:
        folder.chmod(permissions)


@contextmanager
def _as_permissions_say() -> Iterator[None]:
    """Root in this thread may do what its files' permissions say, and no more."""
    if os.geteuid() != 0:
        yield
        return
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0, os.strerror(ctypes.get_errno())
    before = sets[0]
    sets[0] &= ~_OVERRIDES
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
