"""Logging that only the first process of a run writes to the screen."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

OTHERS_WAIT_S = 5


class OneLine(logging.Formatter):
    """Leaves tracebacks to the log file."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        trace, record.exc_info, record.exc_text = record.exc_info, None, None
        try:
            return super().format(record)
        finally:
            record.exc_info = trace


def rank() -> int:
    """Global rank of this process, 0 when it runs alone."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Number of processes of this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def setup_logging(log_file: str | Path | None = None) -> None:
    """Log to stderr on rank 0, warnings only on the others; rank 0 also appends to `log_file`."""
    main = rank() == 0
    prefix = "" if world_size() == 1 else f"[rank {rank()}] "
    layout = f"%(asctime)s {prefix}%(levelname)s %(message)s"
    screen = logging.StreamHandler(sys.stderr)
    screen.setFormatter(OneLine(layout, "%H:%M:%S"))
    handlers: list[logging.Handler] = [screen]
    if log_file is not None and main:
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    level = logging.INFO if main else logging.WARNING
    logging.basicConfig(level=level, format=layout, handlers=handlers, force=True)
    # PEFT still asks transformers by the old name.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    # Names that transformers and DeepSpeed still use; nothing a user could change.
    warnings.filterwarnings(
        "ignore", message=".*gradient_checkpointing.*deprecated.*", category=FutureWarning
    )
    warnings.filterwarnings("ignore", message=".*all_gather_into_tensor.*", category=FutureWarning)
    for noisy in ("httpx", "httpcore", "DeepSpeed", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Warns whoever writes a published `.bin` layout that it is a pickle; it is read as tensors alone.
    logging.getLogger("huggingface_hub.serialization").setLevel(logging.ERROR)


def report(log: logging.Logger, error: Exception) -> None:
    """Say once why a run cannot go on; the trace goes to the log file.

    Most errors are the same on every process, and the first one's end stops the others, so these wait.
    """
    if rank():
        time.sleep(OTHERS_WAIT_S)
    log.error("%s", error, exc_info=True)


def run_reporting(log: logging.Logger, run: Callable[[], object]) -> int:
    """Run a command. Returns its exit code: 0, or 2 for arguments or data that cannot be used."""
    try:
        run()
    except ValueError as error:
        report(log, error)
        return 2
    return 0
