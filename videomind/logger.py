"""Logging that only the first process of a run writes to the screen, and the frame of every command."""

import faulthandler
import fcntl
import json
import logging
import os
import signal
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TypeVar

from videomind.environment import check_processes, drop_foreign, drop_ranks, of_numbers, provide_home
from videomind.faults import ends_run
from videomind.streams import lasting_streams

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


class _LogFile(logging.FileHandler):
    """Says once where it cannot be written any more, and lets the run go on: its results are not there."""

    is_given_up = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.is_given_up:
            self.is_given_up = True
            log.warning("No more is written to %s: %s", self.baseFilename, error.strerror)

    def emit(self, record: logging.LogRecord) -> None:
        if not self.is_given_up:
            super().emit(record)


def _file_handler(path: Path, layout: str) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ValueError(f"Cannot write the log to {path.absolute()}: {error.strerror}") from None
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

    However it ends is said in one line on the screen; the trace goes to the log file, after SIGTERM too. A
    fault of the program that no log file could hold keeps its trace.

    Args:
        parse: gives the arguments.
        run: does the work; what it returns, if anything, is the exit code.
        log_file: where the arguments say that a log is to be written; None is the screen alone.
        exit_codes: of further errors that end a run with their message alone.
        shares_work: whether several processes may run it together, as torchrun starts them; then the
            environment has to say which one this is.

    Returns:
        That of `run`, else 0; 2 for what a user can mend: arguments or data that cannot be used (a ValueError
        of either step), a file that cannot be read or written (an OSError); 1 for other errors.

    Raises:
        KeyboardInterrupt: Ctrl-C; it ends the process without a trace on the screen.
    """
    with lasting_streams(), ExitStack() as until_end:
        ending = _Ending(exit_codes)
        with ending:
            if shares_work:
                _check_environment()
            foreign, own_home = drop_foreign(os.environ), provide_home(os.environ)
            setup_logging()
            args = parse()
            expand_homes(args)
            if (path := log_file(args)) is not None:
                setup_logging(path)
                if rank() == 0:
                    ending.log_file = path.absolute()
                    until_end.enter_context(_termination_noted(path))
            if shares_work and (said := of_numbers(os.environ)):
                log.info("The environment has a say in the numbers: %s", ", ".join(said))
            if own_home is not None:
                log.info("The home folder cannot be written: caches of libraries go to %s", own_home)
            if foreign:
                log.warning("Not used, arguments say it instead: %s in the environment", ", ".join(foreign))
            ending.code = run(args) or 0
            sys.stdout.flush()  # a full disk shows now
        return ending.code


@contextmanager
def _termination_noted(path: Path) -> Iterator[None]:
    """Let SIGTERM, as schedulers send it, leave in a log where the process was when it ended.

    It ends as it would, at once, also where it waits in a library that lets no handler of Python's run.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    with open(path, "a", encoding="utf-8") as file:
        faulthandler.register(signal.SIGTERM, file, chain=True)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGTERM)


def expand_homes(args: object) -> None:
    """Put the home folder in place of a `~` that a shell left in quotes, in what argparse parsed."""
    for name, value in vars(args).items() if isinstance(args, Namespace) else ():
        if isinstance(value, str | Path) and str(value).startswith("~"):
            setattr(args, name, type(value)(os.path.expanduser(value)))


def _check_environment() -> None:
    """Check what says which process this is.

    Raises:
        ValueError: it says nothing that could be used, and is dropped.
    """
    try:
        check_processes(os.environ)
    except ValueError:
        drop_ranks(os.environ)
        setup_logging()
        raise


class _Ending:
    """A block around a command that says how it ended.

    Args:
        exit_codes: of errors that end it with their message alone, beside those that a user can mend.

    Attributes:
        code: the exit code.
        log_file: where the traces of errors go, if anywhere.
    """

    def __init__(self, exit_codes: Mapping[type[Exception], int]):
        self._exit_codes = exit_codes
        self.code = 0
        self.log_file: Path | None = None

    def __enter__(self) -> "_Ending":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, KeyboardInterrupt):
            _report(error, "Interrupted")
            sys.excepthook = _without_interrupts
            return False  # whoever called this command ends as well
        elif isinstance(error, (ValueError, OSError, *self._exit_codes)):
            self.code = next((code for kind, code in self._exit_codes.items() if isinstance(error, kind)), 2)
            _report(error, _in_words(error))
        elif isinstance(error, Exception) and (self.log_file is not None or ends_run(error)):
            self.code = 1
            where = "" if self.log_file is None else f" (where, says {self.log_file})"
            _report(error, f"{type(error).__name__}: {_in_words(error).partition(chr(10))[0]}{where}")
        else:
            return False
        return True


def _without_interrupts(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Let Python show how a process ended, but for an interrupt, which is said already."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


def _in_words(error: BaseException) -> str:
    """Word what ended a run: of a file with its absolute path, of a loader's process without its trace."""
    text, kind = str(error), type(error)
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        return f"{Path(os.fsdecode(error.filename)).absolute()}: {error.strerror}"
    if text.startswith(f"Caught {kind.__name__} in ") and "\nOriginal Traceback " in text:  # by PyTorch
        name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        return text.rpartition(f"\n{name}: ")[2].strip() or text
    return text


def _report(error: BaseException, reason: str) -> None:
    """Say why a run cannot go on; the processes of a machine say the same thing once."""
    with _said_before(reason) as was_said:
        log.error("%s", reason, exc_info=error, extra={SAID: was_said})


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
    with ExitStack() as ends:
        try:
            said = ends.enter_context(open(Path(own_file).parents[1] / REASONS, "a+", encoding="utf-8"))
        except OSError:  # the disk is full: better said twice than not at all
            yield False
            return
        fcntl.flock(said, fcntl.LOCK_EX)  # until it is closed, or this process is killed
        said.seek(0)
        line = json.dumps(message) + "\n"
        was_said = line in said.readlines()
        yield was_said
        if not was_said:
            with suppress(OSError):
                said.write(line)
                said.flush()
