"""How many workers of a data loader the shared memory has room for, and what ends a run when they fail.

Workers hand their samples over in shared memory (/dev/shm on Linux), of which containers have 64 MB unless
told otherwise. Where it is full, torch's workers print a traceback and the training waits for them for ever.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videomind.faults import RunError

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
LOADER_TIMEOUT_S = 600.0  # for one micro-batch; the other processes of a step wait no longer either
PREFETCHED = 2  # micro-batches of a worker, torch's default
_RESERVE = 0.8  # share of what is free that is used: each sample has small tensors, too


def workers_that_fit(workers: int, *, batch_bytes: int, prefetched: int, processes: int) -> int:
    """Count the workers whose samples fit into this machine's shared memory, and say so where they are fewer.

    Args:
        workers: asked for, per process.
        batch_bytes: of a micro-batch, at most.
        prefetched: micro-batches that a worker makes ahead.
        processes: of this machine that have workers.

    Returns:
        At most `workers`; 0 where not even one has room, so that the process loads by itself.
    """
    if not workers or not SHARED_MEMORY.is_dir():
        return workers
    free = shutil.disk_usage(SHARED_MEMORY).free
    # One more is made while those ahead wait.
    room = int(free * _RESERVE / processes / max(batch_bytes * (prefetched + 1), 1))
    if room < workers:
        log.warning(
            "%d MB are free in %s, %d process(es) x %d loader workers need up to %d MB: %d worker(s) instead "
            "(docker run --shm-size, or fewer and smaller frames, make room)",
            *(free >> 20, SHARED_MEMORY, processes, workers),
            *(processes * workers * (prefetched + 1) * batch_bytes / _RESERVE / 2**20, room),
        )
    return min(workers, room)


def local_processes() -> int:
    """Count the processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def loading() -> Iterator[None]:
    """End the run with one line where a loader's worker cannot deliver.

    Raises:
        RunError: a worker was killed, or gave nothing for `LOADER_TIMEOUT_S`.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(("DataLoader worker", "DataLoader timed out")):
            raise
        free = shutil.disk_usage(SHARED_MEMORY).free >> 20 if SHARED_MEMORY.is_dir() else 0
        raise RunError(
            f"A worker of the data loader does not deliver ({str(error).splitlines()[0]}). {free} MB of "
            f"{SHARED_MEMORY} are free. With --dataloader_num_workers 0 each process loads by itself."
        ) from error
