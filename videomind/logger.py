"""Logging that only the first process of a run writes to the screen, and the frame of every command."""

import fcntl
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from videomind.environment import check_processes, drop_foreign, drop_ranks

log = logging.getLogger(__name__)

HANDLER_NAME = "videomind"  # of the handlers set up here
REASONS = "videomind_reasons.jsonl"  # why processes of a run could not go on
SAID = "was_said"  # of a record: another process has it on the screen already
Arguments = TypeVar("Arguments")


class OneLine(logging.Formatter):
    """Leaves tracebacks to the log file."""

    def format(self, record: logging.LogRecord) -> str:
        trace, record.exc_info, record.exc_text = record.exc_info, None, None
        try:
            return super().format(record)
        finally:
            record.exc_info = trace


def rank() -> int:
    """Read the global rank of this process, 0 when it runs alone."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Read the number of processes of this run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def setup_logging(log_file: str | Path | None = None) -> None:
    """Log to stderr on rank 0, warnings only on the others.

    What an earlier call set up is replaced; handlers of others that don't write to the screen stay.

    Args:
        log_file: where rank 0 logs too, at its end.

    Raises:
        ValueError: there can be no such file.
    """
    is_first = rank() == 0
    prefix = "" if world_size() == 1 else f"[rank {rank()}] "
    layout = f"%(asctime)s {prefix}%(levelname)s %(message)s"
    screen = logging.StreamHandler(sys.stderr)
    screen.setFormatter(OneLine(layout, "%H:%M:%S"))
    screen.addFilter(lambda record: not getattr(record, SAID, False))
    handlers: list[logging.Handler] = [screen]
    if log_file is not None and is_first:
        handlers.append(_file_handler(Path(log_file), layout))
    _replace_handlers(handlers)
    logging.getLogger().setLevel(logging.INFO if is_first else logging.WARNING)
    _silence_others()


def _file_handler(path: Path, layout: str) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"Cannot write the log to {path}: {error.strerror}") from None
    handler.setFormatter(logging.Formatter(layout))
    return handler


def _replace_handlers(handlers: Sequence[logging.Handler]) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if handler.name == HANDLER_NAME or getattr(handler, "stream", None) in (sys.stderr, sys.stdout):
            root.removeHandler(handler)
            handler.close()
    for handler in handlers:
        handler.name = HANDLER_NAME
        root.addHandler(handler)


def _silence_others() -> None:
    """Leave out what libraries say and no user could change."""
    # PEFT still asks transformers by the old name.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    # Names that transformers and DeepSpeed still use.
    warnings.filterwarnings(
        "ignore", message=".*gradient_checkpointing.*deprecated.*", category=FutureWarning
    )
    warnings.filterwarnings("ignore", message=".*all_gather_into_tensor.*", category=FutureWarning)
    for noisy in ("httpx", "httpcore", "DeepSpeed", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Warns whoever writes a published `.bin` layout that it is a pickle; it is read as tensors alone.
    logging.getLogger("huggingface_hub.serialization").setLevel(logging.ERROR)


def run_command(
    parse: Callable[[], Arguments],
    run: Callable[[Arguments], int | None],
    *,
    log_file: Callable[[Arguments], Path | None] = lambda _: None,
    exit_codes: Mapping[type[Exception], int] = MappingProxyType({}),
    shares_work: bool = False,
) -> int:
    """Run a command from its command line to its exit code: the `main` of every module that is one.

    What makes it impossible to go on is said in one line on the screen; the trace goes to the log file.

    Args:
        parse: gives the arguments.
        run: does the work; what it returns, if anything, is the exit code.
        log_file: where the arguments say that a log is to be written; None is the screen alone.
        exit_codes: of further errors that end a run with their message alone.
        shares_work: whether several processes may run it together, as torchrun starts them; then the
            environment has to say which one this is.

    Returns:
        That of `run`, else 0; 2 for what a user can mend: arguments or data that cannot be used (a ValueError
        of either step), a file that cannot be read or written (an OSError).
    """
    try:
        if shares_work:
            check_processes(os.environ)
    except ValueError as error:
        drop_ranks(os.environ)  # they say nothing that could be used
        setup_logging()
        _report(error)
        return 2
    foreign = drop_foreign(os.environ)
    setup_logging()
    try:
        args = parse()
        if (path := log_file(args)) is not None:
            setup_logging(path)
        if foreign:
            log.warning("Not used, arguments say it instead: %s in the environment", ", ".join(foreign))
        return run(args) or 0
    except (ValueError, OSError, *exit_codes) as error:
        _report(error)
        return next((code for kind, code in exit_codes.items() if isinstance(error, kind)), 2)


def _report(error: Exception) -> None:
    """Say why a run cannot go on; the processes of a machine say the same thing once."""
    with _said_before(str(error)) as was_said:
        log.error("%s", error, exc_info=True, extra={SAID: was_said})


@contextmanager
def _said_before(message: str) -> Iterator[bool]:
    """Tell whether another process of this run has said a message; it counts as said when the block ends.

    The first one's end stops the others, so whoever comes second waits until the first has said it. torchrun
    gives its processes a folder in common, by the name of a file for each one's error.
    """
    own_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not own_file:
        yield False
        return
    with open(Path(own_file).parents[1] / REASONS, "a+", encoding="utf-8") as said:
        fcntl.flock(said, fcntl.LOCK_EX)  # until it is closed, or this process is killed
        said.seek(0)
        line = json.dumps(message) + "\n"
        was_said = line in said.readlines()
        yield was_said
        if not was_said:
            said.write(line)
