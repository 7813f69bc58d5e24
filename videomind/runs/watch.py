"""What samples alone do not do: fail one after the other with the same answer of the system, or all be gone.

Then it is the machine's fault (`videomind.faults`), the run ends, and nothing of it is booked on them.
"""

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from videomind.faults import RunError, errnos_of

IN_A_ROW = 8  # samples
# What a single file may answer, and what a machine answers for one after the other.
REPEATED = frozenset((errno.EIO, errno.EACCES, errno.EPERM, errno.ETIMEDOUT, errno.EREMOTEIO, errno.EBADF))


class MachineWatch:
    """Looks at how samples end, one after the other.

    Args:
        folders: that samples' files lie in; one that is not there now, or empty, is not looked at.
    """

    def __init__(self, folders: Iterable[str | os.PathLike | None] = ()):
        named = (Path(folder).absolute() for folder in folders if folder is not None)
        self._folders = [folder for folder in dict.fromkeys(named) if not _is_empty(folder)]
        self._errno: int | None = None  # of the last sample
        self._count = 0  # of those in a row that had it

    @property
    def has_doubts(self) -> bool:
        """Whether the last sample's error may turn out to be the machine's."""
        return self._count > 0

    def see(self, error: BaseException | None) -> None:
        """Take note of how a sample ended.

        Args:
            error: that it ended with, or None.

        Raises:
            RunError: it is the machine's fault.
        """
        for folder in self._folders if error is not None else ():
            if _is_empty(folder):
                raise RunError(f"The folder {folder} has gone, or is empty now: {error}") from error
        number = next((number for number in errnos_of(error) if number in REPEATED), None)
        self._count = 0 if number is None else self._count + 1 if number == self._errno else 1
        self._errno = number
        if self._count >= IN_A_ROW:
            raise RunError(
                f"{self._count} samples in a row failed with {os.strerror(number)!r}, the last one: {error}"
            ) from error


def _is_empty(folder: str | os.PathLike) -> bool:
    """Tell whether a folder is gone, or holds nothing as one does whose disk is not there."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def common_folder(paths: Iterable[str | Sequence[str] | None]) -> str | None:
    """Find the folder that all files lie in.

    Args:
        paths: of files; of a list of them the first counts.

    Returns:
        The lowest such folder, absolute; None without any file.
    """
    names = (path if isinstance(path, str) else path[0] for path in paths if path)
    folders = {os.path.dirname(os.path.abspath(name)) for name in names}
    return os.path.commonpath(folders) if folders else None
