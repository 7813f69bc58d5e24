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
        except self._excused:
            self._leave()
            return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        try:
            self._stream.flush()
        except self._excused:
            self._leave()

    def _leave(self) -> None:
        """Let all that is written from now on, here or by Python at its end, go nowhere."""
        with suppress(OSError, ValueError):
            number = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Let a block write to standard output and error as `LastingStream` does."""
    before = sys.stdout, sys.stderr
    for stream in filter(None, before):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (
        stream and LastingStream(stream, also_full=is_error) for stream, is_error in zip(before, (False, True), strict=True)
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
