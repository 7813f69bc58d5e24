"""Standard output and error that hold what a run says, whoever reads them, and in whichever encoding."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class LastingStream:
    """A stream that goes on when nobody reads it any more: what a run says there is not what it is for.

    Args:
        stream: standard output or error.
        also_full: whether it is left as well where it cannot be written for another reason, as a file on a
            full disk cannot.
    """

    def __init__(self, stream: TextIO, *, also_full: bool):
        self._stream = stream
        self._excused = OSError if also_full else BrokenPipeError

    def write(self, text: str) -> int:
        """Write a text; what the stream's encoding lacks is written as an escape."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._leave(error)
            return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        try:
            self._stream.flush()
        except OSError as error:
            self._leave(error)

    def _leave(self, error: OSError) -> None:
        """Let all that is written from now on, here or by Python at its end, go nowhere.

        Raises:
            OSError: the error, where it is not excused. (At its end Python 3.13 would say it once more, and
                give the process another exit code.)
        """
        with suppress(OSError, ValueError):
            _lead_nowhere(self._stream.fileno())
        if not isinstance(error, self._excused):
            raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _lead_nowhere(number: int) -> None:
    """Let a file descriptor, which may be closed, take what is written and keep nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _lasting(stream: TextIO | None, number: int, *, also_full: bool) -> LastingStream:
    """Wrap a standard stream; one that is closed goes nowhere, so that no file gets its number."""
    if stream is None:
        _lead_nowhere(number)
        stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return LastingStream(stream, also_full=also_full)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Let a block write to standard output and error as `LastingStream` does."""
    before = sys.stdout, sys.stderr
    sys.stdout = _lasting(sys.stdout, 1, also_full=False)
    sys.stderr = _lasting(sys.stderr, 2, also_full=True)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
