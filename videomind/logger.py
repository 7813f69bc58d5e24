"""Logging that only the first process of a run writes to the screen."""

import logging
import os
import sys
from pathlib import Path


def rank() -> int:
    """Global rank of this process, 0 when it runs alone."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Number of processes of this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def setup_logging(log_file: str | Path | None = None) -> None:
    """Log to stderr on rank 0, warnings only on the others; rank 0 also appends to `log_file`."""
    main = rank() == 0
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None and main:
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    prefix = "" if world_size() == 1 else f"[rank {rank()}] "
    logging.basicConfig(
        level=logging.INFO if main else logging.WARNING,
        format=f"%(asctime)s {prefix}%(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers,
        force=True,
    )
    for noisy in ("httpx", "httpcore", "DeepSpeed", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
