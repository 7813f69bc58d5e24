"""Sharing samples among processes, one line of output per finished sample, and going on after a kill.

Each process appends to a part file of its own; the parts are merged, in the data set's order, when all
samples are done.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from videomind.device import HOST_BACKEND
from videomind.files import read_json, write_json, write_text
from videomind.logger import rank, world_size

log = logging.getLogger(__name__)

RESULT = "output.jsonl"
SETTINGS = "settings.json"
T = TypeVar("T")


def start_processes() -> None:
    """Join the process group of torchrun; alone there is nothing to join."""
    if world_size() > 1 and not dist.is_initialized():
        # Whoever is done first waits for the slowest; a long video may take a while.
        dist.init_process_group(HOST_BACKEND, timeout=timedelta(days=2))


def shared_order(count: int) -> Iterator[int]:
    """Indices below `count`, each given to one process only, as it asks for it.

    Processes draw from one counter, so a slow one never holds the others back.
    """
    if not dist.is_initialized():
        yield from range(count)
        return
    store = dist.distributed_c10d._get_default_store()
    while (index := store.add("videomind/next", 1) - 1) < count:
        yield index


def prepared_ahead(
    indices: Iterator[int], make: Callable[[int], T], num_threads: int
) -> Iterator[tuple[int, Any]]:
    """Make inputs in threads while the model works on earlier ones (decoding releases the GIL).

    Yields: index and a function that returns what `make` made, or raises what it raised.
    """
    with ThreadPoolExecutor(max(num_threads, 1)) as pool:
        waiting: list[tuple[int, Any]] = []
        for index in indices:
            waiting.append((index, pool.submit(make, index)))
            if len(waiting) > num_threads:
                ready, future = waiting.pop(0)
                yield ready, future.result
        for ready, future in waiting:
            yield ready, future.result


class ResultFile:
    """Predictions of one data set split below one folder.

    Args: folder; settings that identify the run. Raises: ValueError when the folder holds the results of
    other settings.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any]):
        self.folder = Path(folder)
        stored = self.folder / SETTINGS
        if stored.is_file() and (found := read_json(stored)) != settings:
            differing = [k for k in settings.keys() | found.keys() if settings.get(k) != found.get(k)]
            raise ValueError(
                f"{self.folder} holds results of other settings ({', '.join(sorted(differing))} differ). "
                "Choose another --pred_path, or delete it."
            )
        if rank() == 0:
            write_json(stored, settings)
        self._part = self.folder / "parts" / f"part_{rank()}.jsonl"

    def done(self) -> dict[int, dict]:
        """Records of all parts by index; a line that a kill cut short is left out."""
        records: dict[int, dict] = {}
        for path in sorted((self.folder / "parts").glob("part_*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                with suppress(json.JSONDecodeError):  # only the last line can be cut; it is done again
                    entry = json.loads(line)
                    records[entry["index"]] = entry["record"]
        return records

    def append(self, index: int, record: dict) -> None:
        """Write one finished sample at once."""
        self._part.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"index": index, "record": record}, ensure_ascii=False)
        with open(self._part, "ab+") as file:
            if file.tell() and not _ends_line(file):
                file.write(b"\n")
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def merge(self, count: int) -> Path:
        """Write all records in order. Args: count of samples. Raises: RuntimeError if some are missing."""
        records = self.done()
        if missing := [i for i in range(count) if i not in records]:
            raise RuntimeError(f"{len(missing)} of {count} samples have no result (first: {missing[:5]})")
        lines = [json.dumps(records[i], ensure_ascii=False) + "\n" for i in range(count)]
        write_text(self.folder / RESULT, "".join(lines))
        return self.folder / RESULT


def _ends_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
