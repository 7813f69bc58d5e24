"""Sharing samples among processes, one line of output per finished sample, and going on after a kill.

Each process appends to a part file of its own; the parts are merged, in the data set's order, when all
samples are done.
"""

import atexit
import itertools
import logging
import secrets
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from videomind.device import HOST_BACKEND
from videomind.files import (
    append_json_line,
    read_json,
    read_json_lines,
    write_json,
    write_json_lines,
    write_text,
)
from videomind.logger import rank, world_size
from videomind.prediction import RESULT, SETTINGS
from videomind.runs.boundary import Boundary
from videomind.runs.identity import differences
from videomind.runs.together import from_all, from_first, within
from videomind.runs.watch import MachineWatch

log = logging.getLogger(__name__)

MEETING = timedelta(minutes=30)  # until all processes of a run are there
WORK = timedelta(days=2)  # whoever is done first waits for the slowest; a long video may take a while
SHOWN = 80  # characters of a wrong line in a message
SHARED_FOLDER_S = 60.0  # how far behind a shared folder may be on other nodes
_ORDERS = itertools.count()  # of the calls of `shared_order`
W = TypeVar("W")  # what a generator wants
P = TypeVar("P")  # the same, prepared
R = TypeVar("R")  # what it returns in the end


def start_processes() -> None:
    """Join the process group of torchrun, until this process ends; alone there is nothing to join."""
    if world_size() > 1 and not dist.is_initialized():
        store, number, size = next(rendezvous("env://", timeout=MEETING))
        store.set_timeout(WORK)
        dist.init_process_group(HOST_BACKEND, store=store, rank=number, world_size=size, timeout=WORK)
        atexit.register(_leave_group)


def _leave_group() -> None:
    """Leave before the interpreter is torn down: threads of a group that is left to that may abort it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def check_shared(folder: Path, flag: str) -> None:
    """See that all processes write to one folder.

    Args:
        folder: of the run.
        flag: what chooses it, for the message.

    Raises:
        ValueError: some node does not see what the first process writes there; names it.
    """
    if not dist.is_initialized():
        return

    def leave_token() -> str:
        token = folder / f".{secrets.token_hex(8)}.shared"
        write_text(token, socket.gethostname())
        return token.name

    token = folder / from_first(leave_token)
    is_there = within(SHARED_FOLDER_S, token.is_file)
    seen = from_all((socket.gethostname(), is_there))
    if rank() == 0:
        token.unlink()
    if blind := sorted({host for host, is_there in seen if not is_there}):
        raise ValueError(
            f"{folder.absolute()} is not the same folder on all nodes: {', '.join(blind)} cannot see what "
            f"{seen[0][0]} writes there. Choose a {flag} that all nodes share."
        )


def shared_order(count: int) -> Iterator[int]:
    """Share the indices below `count`: each goes to one process only, as it asks for it.

    Processes draw from one counter, so a slow one never holds the others back. Each call has a counter of its
    own: all processes call it equally often.
    """
    return _drawn(count, f"videomind/next/{next(_ORDERS)}")


def _drawn(count: int, counter: str) -> Iterator[int]:
    if not dist.is_initialized():
        yield from range(count)
        return
    store = dist.distributed_c10d._get_default_store()
    while (index := store.add(counter, 1) - 1) < count:
        yield index


def in_flight(
    indices: Iterator[int],
    start: Callable[[int], Generator[W, P, R]],
    prepare: Callable[[W], P],
    *,
    num_threads: int,
    also: tuple[type[Exception], ...] = (),
    watch: MachineWatch | None = None,
) -> Iterator[tuple[int, R | Exception]]:
    """Drive several generators at once: what one asks for is prepared in threads while another one works.

    The generators themselves run here, one at a time, the oldest that is ready first. Errors that may be the
    machine's are held back until another sample tells.

    Args:
        indices: what is to be done.
        start: makes the generator of an index, which yields what it wants prepared.
        prepare: prepares it (decoding releases the GIL).
        num_threads: how many prepare at once.
        also: errors of the machine that end one generator only, because what it works on decides.
        watch: tells the machine's fault from samples'; by default without a folder.

    Yields:
        Index and the generator's return value, or the error of its sample that ended it.

    Raises:
        RunError: it is the machine's fault.
    """
    watch = watch or MachineWatch()
    held: list[tuple[int, R | Exception]] = []
    for index, outcome in _driven(indices, start, prepare, num_threads, also):
        watch.see(outcome if isinstance(outcome, Exception) else None)
        held.append((index, outcome))
        if not watch.has_doubts:
            yield from held
            held.clear()
    yield from held


def _driven(
    indices: Iterator[int],
    start: Callable[[int], Generator[W, P, R]],
    prepare: Callable[[W], P],
    num_threads: int,
    also: tuple[type[Exception], ...],
) -> Iterator[tuple[int, R | Exception]]:
    """Drive generators as `in_flight` does, and yield each as it ends."""
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
    """Predictions of one data set split below one folder, which all processes of a run share.

    Args:
        folder: of the run.
        settings: what the results depend on, the same on all processes (`runs.identity`).
        part: which of several runs that share the folder this one is.
        flag: what chooses the folder, for messages.

    Raises:
        ValueError: the folder holds the results of other settings, or is another one on some node.
    """

    def __init__(
        self, folder: str | Path, settings: dict[str, Any], part: int = 0, *, flag: str = "--pred_path"
    ):
        self.folder = Path(folder)
        from_first(lambda: self._claim(settings, flag))
        check_shared(self.folder, flag)
        # The name tells all processes apart that may write at one time.
        own = f"_{rank()}of{world_size()}" if world_size() > 1 else ""
        self._part = self.folder / "parts" / f"part_{part}{own}.jsonl"

    def _claim(self, settings: dict[str, Any], flag: str) -> None:
        stored = self.folder / SETTINGS
        if stored.is_file() and (phrases := differences(read_json(stored), settings)):
            raise ValueError(
                f"{self.folder} holds results of other settings: {'; '.join(phrases)}. "
                f"Choose another {flag}, or delete it."
            )
        write_json(stored, settings)

    def pending(self, indices: Iterable[int], *, failed: bool = True) -> list[int]:
        """Tell which samples have no result yet, the same on all processes.

        Args:
            indices: those of this run.
            failed: whether a record that a sample failed counts as a result.
        """
        done = from_first(lambda: set(self.done(failed=failed)))
        return [index for index in indices if index not in done]

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

    def complete(self, count: int) -> list[dict]:
        """Read the records of all samples in order.

        Args:
            count: of samples.

        Raises:
            RuntimeError: some are missing.
        """
        records: dict[int, dict] = {}

        def missing() -> list[int]:
            records.update(self.done())
            return [i for i in range(count) if i not in records]

        within(SHARED_FOLDER_S if world_size() > 1 else 0, lambda: not missing())
        if lacking := missing():
            raise RuntimeError(f"{len(lacking)} of {count} samples have no result (first: {lacking[:5]})")
        return [records[i] for i in range(count)]

    def merge(self, count: int) -> Path:
        """Write all records in order.

        Args:
            count: of samples.

        Raises:
            RuntimeError: some are missing.
        """
        write_json_lines(self.folder / RESULT, self.complete(count))
        return self.folder / RESULT
