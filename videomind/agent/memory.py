"""A step of the agent that a device's memory may be too small for."""

from collections.abc import Callable
from typing import TypeVar

from videomind.device import free_cached_memory
from videomind.faults import is_out_of_memory
from videomind.runs.boundary import release_frames

T = TypeVar("T")


def unless_too_large(step: Callable[[], T]) -> T | RuntimeError:
    """Run a step. If the memory is too small, what it held is let go, else it would be there for the next.

    Returns:
        What it gives, or the error that the device's memory was too small for it.
    """
    try:
        return step()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        release_frames(error)
        too_large = error
    free_cached_memory()
    return too_large
