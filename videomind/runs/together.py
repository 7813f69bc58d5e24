"""What the processes of one run tell each other: what the first one decides, and what each of them has."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

BETWEEN_S = 0.5  # looks at a shared folder, which may show a file a little later elsewhere
T = TypeVar("T")


def from_first(decide: Callable[[], T]) -> T:
    """Let the first process decide, and the others know: what each reads itself may differ.

    A shared folder shows one node later than another what is written there.

    Args:
        decide: called on the first process only.

    Raises:
        ValueError: what `decide` raised, on every process; so with an OSError.
    """
    if not dist.is_initialized():
        return decide()
    told: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            told[0] = decide()
        except (ValueError, OSError) as error:
            told[1] = error
    dist.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    return told[0]


def from_all(value: Any) -> list[Any]:
    """Collect what each process has, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    """Ask until it is so, or for some seconds."""
    end = time.monotonic() + seconds
    while not (answer := is_so()) and time.monotonic() < end:
        time.sleep(BETWEEN_S)
    return answer
