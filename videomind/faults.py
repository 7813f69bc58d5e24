"""Whose fault an error is: a sample's, whose data can cause anything, or the machine's and the run's.

What is the machine's (no memory, no handles, no disk, a device that is gone) or the run's (a library that is
not installed, an option that means nothing) would meet every other sample as well, so it ends the run. All
else ends the sample that it happened to: see `videomind.runs.boundary`.
"""

import errno
import os
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor


class RunError(ValueError):
    """An option or an installation that no sample could do anything about."""


_MACHINE_ERRNOS = frozenset((
    errno.ENOMEM,
    errno.EMFILE, errno.ENFILE,  # too many open files
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG,
    errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN,  # a disk that is gone
))  # fmt: skip
_MACHINE_ERRORS = (RunError, MemoryError, ImportError, BrokenExecutor)
NPU_OUT_OF_MEMORY = "NPU out of memory"
# Libraries that are not written in Python say it in words.
_MACHINE_WORDS = (
    "can't start new thread", "can't allocate memory", "CUDA error", NPU_OUT_OF_MEMORY,
    *map(os.strerror, _MACHINE_ERRNOS),
)  # fmt: skip
_WRITE_ERRNOS = (*_MACHINE_ERRNOS, errno.EACCES, errno.EPERM, errno.EIO)
_NOT_WRITTEN = ("PytorchStreamWriter failed", "unexpected pos ")  # torch.save does not say why


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a device's memory was too small; older versions of torch-npu say so in words alone."""
    torch = sys.modules.get("torch")
    is_told = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return is_told or (isinstance(error, RuntimeError) and NPU_OUT_OF_MEMORY in str(error))


def ends_run(error: BaseException) -> bool:
    """Tell whether an error, or one that it came from, is the machine's or the run's.

    A reader that cannot open one more file says that the video is bad; what it came from tells otherwise.
    """
    return any(_is_of_machine(origin) for origin in _origins(error))


def errnos_of(error: BaseException | None) -> Iterator[int]:
    """Yield the system's numbers of an error, and of those that it came from."""
    for origin in _origins(error):
        if isinstance(number := getattr(origin, "errno", None), int):
            yield number


def write_errno(error: BaseException) -> int | None:
    """Tell what the system answered to a library that wrote a file; None where that was not the reason."""
    if isinstance(error, OSError):
        return error.errno
    if not _is_foreign(error):
        return None
    if any(words in str(error) for words in _NOT_WRITTEN):
        return errno.EIO
    return next((number for number in _WRITE_ERRNOS if os.strerror(number) in str(error)), None)


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, and those in whose handling it was raised."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_of_machine(error: BaseException) -> bool:
    if isinstance(error, (*_MACHINE_ERRORS, *_device_errors())) or not isinstance(error, Exception):
        return True
    if getattr(error, "errno", None) in _MACHINE_ERRNOS:  # FFmpeg's errors have it without being OSErrors
        return True
    return _is_foreign(error) and any(words in str(error) for words in _MACHINE_WORDS)


def _is_foreign(error: BaseException) -> bool:
    """Tell whether an error is of a library that says in words what the system answered."""
    return isinstance(error, RuntimeError) or type(error).__name__ == "SafetensorError"


def _device_errors() -> tuple[type[Exception], ...]:
    """List torch's errors of devices and of the processes' connection; none can come before it is loaded."""
    torch = sys.modules.get("torch")
    if torch is None:
        return ()
    return torch.OutOfMemoryError, torch.AcceleratorError, torch.distributed.DistError
