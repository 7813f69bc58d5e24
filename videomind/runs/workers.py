"""Sharing samples among processes, one line of output per finished sample, and going on after a kill.

Each process appends to a part file of its own; the parts are merged, in the data set's order, when all
samples are done.
"""

import logging
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from videomind.device import HOST_BACKEND
from videomind.files import append_json_line, read_json, read_json_lines, write_json, write_json_lines
from videomind.logger import rank, world_size
from videomind.runs.boundary import Boundary

log = logging.getLogger(__name__)

RESULT = "output.jsonl"
SETTINGS = "settings.json"
SHOWN = 80  # characters of a wrong line in a message
W = TypeVar("W")  # what a generator wants
P = TypeVar("P")  # the same, prepared
R = TypeVar("R")  # what it returns in the end


def start_processes() -> None:
    """Join the process group of torchrun; alone there is nothing to join."""
    if world_size() > 1 and not dist.is_initialized():
        # Whoever is done first waits for the slowest; a long video may take a while.
        dist.init_process_group(HOST_BACKEND, timeout=timedelta(days=2))


def shared_order(count: int) -> Iterator[int]:
    """Share the indices below `count`: each goes to one process only, as it asks for it.

    Processes draw from one counter, so a slow one never holds the others back.
    """
    if not dist.is_initialized():
        yield from range(count)
        return
    store = dist.distributed_c10d._get_default_store()
    while (index := store.add("videomind/next", 1) - 1) < count:
        yield index


def in_flight(
    indices: Iterator[int],
    start: Callable[[int], Generator[W, P, R]],
    prepare: Callable[[W], P],
    *,
    num_threads: int,
    also: tuple[type[Exception], ...] = (),
) -> Iterator[tuple[int, R | Exception]]:
    """Drive several generators at once: what one asks for is prepared in threads while another one works.

    The generators themselves run here, one at a time, the oldest that is ready first.

    Args:
        indices: what is to be done.
        start: makes the generator of an index, which yields what it wants prepared.
        prepare: prepares it (decoding releases the GIL).
        num_threads: how many prepare at once.
        also: errors of the machine that end one generator only, because what it works on decides.

    Yields:
        Index and the generator's return value, or the error of its sample that ended it.
    """
    with ThreadPoolExecutor(max(num_threads, 1)) as pool:
        waiting: dict[Future[P], tuple[int, Generator[W, P, R]]] = {}

        def advance(index: int, steps: Generator[W, P, R], get: Callable[[], P | None]) -> Any:
            """Run a generator to its next wish.

            Returns:
                What it ended with, or None.
            """
            with Boundary(*also) as sample:
                try:
                    waiting[pool.submit(prepare, steps.send(get()))] = (index, steps)
                except StopIteration as end:
                    return end.value
            return sample.error

        more = True
        while more or waiting:
            while more and len(waiting) <= num_threads:
                index = next(indices, None)
                more = index is not None
                if more and (ended := advance(index, start(index), lambda: None)) is not None:
                    yield index, ended
            if waiting:
                wait(waiting, return_when=FIRST_COMPLETED)
                ready = next(future for future in waiting if future.done())
                index, steps = waiting.pop(ready)
                if (ended := advance(index, steps, ready.result)) is not None:
                    yield index, ended


class ResultFile:
    """Predictions of one data set split below one folder.

    Args:
        folder: of the run.
        settings: that identify it.
        part: which of several runs that share the folder this one is.
        flag: what chooses the folder, for messages.

    Raises:
        ValueError: the folder holds the results of other settings.
    """

    def __init__(
        self, folder: str | Path, settings: dict[str, Any], part: int = 0, *, flag: str = "--pred_path"
    ):
        self.folder = Path(folder)
        stored = self.folder / SETTINGS
        if stored.is_file() and (found := read_json(stored)) != settings:
            differing = [k for k in settings.keys() | found.keys() if settings.get(k) != found.get(k)]
            raise ValueError(
                f"{self.folder} holds results of other settings ({', '.join(sorted(differing))} differ). "
                f"Choose another {flag}, or delete it."
            )
        if rank() == 0:
            write_json(stored, settings)
        self._part = self.folder / "parts" / f"part_{part * world_size() + rank()}.jsonl"

    def done(self, *, failed: bool = True) -> dict[int, dict]:
        """Read the records of all parts by index; a line that a kill cut short is left out.

        Of a sample that failed first and was done again later the failure is left out.

        Args:
            failed: whether a record that a sample failed counts.

        Raises:
            ValueError: a whole line holds something else.
        """
        records: dict[int, dict] = {}
        for path in sorted((self.folder / "parts").glob("part_*.jsonl")):
            for number, entry in read_json_lines(path, skip_cut=True):  # a cut sample is done again
                if not isinstance(entry, dict) or entry.keys() != {"index", "record"}:
                    raise ValueError(f"{path}, line {number}, is no finished sample: {str(entry)[:SHOWN]}")
                if entry["index"] not in records or "error" not in entry["record"]:
                    records[entry["index"]] = entry["record"]
        return {i: record for i, record in records.items() if failed or "error" not in record}

    def append(self, index: int, record: dict) -> None:
        """Write one finished sample at once."""
        append_json_line(self._part, {"index": index, "record": record})

    def merge(self, count: int) -> Path:
        """Write all records in order.

        Args:
            count: of samples.

        Raises:
            RuntimeError: some are missing.
        """
        records = self.done()
        if missing := [i for i in range(count) if i not in records]:
            raise RuntimeError(f"{len(missing)} of {count} samples have no result (first: {missing[:5]})")
        write_json_lines(self.folder / RESULT, (records[i] for i in range(count)))
        return self.folder / RESULT
