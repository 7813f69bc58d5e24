"""Workflows of several steps that go on where they ended: what each needs, makes and runs.

One rule says whether a step is done: its mark holds the fingerprint that it has now, and what it makes is
there. The fingerprint is made of its commands and of the fingerprints of the steps it needs; so a step runs
again when its own command changed or one before it did. A step that was killed goes on, since its commands
do.
"""

import hashlib
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from videomind.files import read_json, write_json
from videomind.quickstart.screen import Screen, percent_of
from videomind.runs.processes import LAUNCHER

MARKS, LOGS = "steps", "logs"  # folders of the marks and of what the commands say, below the workflow's own
TAIL = 20  # lines of a log that are shown when its command fails
STOP_S = 3  # what a command has to end by itself after an interrupt


class StepFailed(Exception):
    """A step's command ended with an error, which it has reported itself.

    Attributes:
        code: its exit code.
    """

    def __init__(self, title: str, code: int):
        super().__init__(f"{title}: ended with exit code {code}")
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Command:
    """One process.

    Attributes:
        argv: program and arguments; a first word `videomind` means this package's own command.
        output: file that its standard output goes to; all else goes to the step's log.
        environment: variables that are set for it.
    """

    argv: tuple[str, ...]
    output: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def full_argv(self) -> list[str]:
        """Write the program and its arguments as they are started."""
        own = [sys.executable, "-m", "videomind.runs.processes", "videomind.cli"]
        return [*own, *self.argv[1:]] if self.argv[0] == "videomind" else list(self.argv)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a workflow.

    Attributes:
        name: its mark's name.
        title: what is said when it starts.
        needs: names of the steps whose results it uses.
        makes: files and folders that are there when it is done.
        commands: what it runs, one after the other.
        note: what a reader should know about it.
        expected_s: how long it takes on two cores of the machine in docs/BENCHMARKS.md.
    """

    name: str
    title: str
    makes: tuple[Path, ...]
    commands: tuple[Command, ...]
    needs: tuple[str, ...] = ()
    note: str = ""
    expected_s: float = 0.0


@dataclass(kw_only=True)
class Workflow:
    """Steps in their order.

    Attributes:
        folder: everything goes there; it may be moved as a whole.
        steps: each needs only steps before it.
        screen: says where it is.
    """

    folder: Path
    steps: Sequence[Step]
    screen: Screen

    def run(self, before: Mapping[str, Callable[[], object]] | None = None) -> None:
        """Run what is not done.

        Args:
            before: by name of a step, what is to happen before its commands.

        Raises:
            StepFailed: a command failed.
            ValueError: a step left something out that it should make.
        """
        fingerprints: dict[str, str] = {}
        for step in self.steps:
            needed = [fingerprints[name] for name in step.needs]
            fingerprints[step.name] = digest_of_step(step, self.folder, needed)
        is_done = {step.name: self.is_done(step, fingerprints[step.name]) for step in self.steps}
        self.screen.begin([step.expected_s for step in self.steps if not is_done[step.name]])
        for step in self.steps:
            if is_done[step.name]:
                self.screen.skip(step.title)
                continue
            if step.note:
                self.screen.say(step.note)
            self.screen.step(step.title, step.expected_s)
            if before and step.name in before:
                before[step.name]()
            self._run_step(step, fingerprints[step.name])
            self.screen.end()

    def is_done(self, step: Step, state: str) -> bool:
        """Tell whether a step was run to its end as it is now, and its results are there."""
        mark = self._mark(step)
        if not mark.is_file() or not all(path.exists() for path in step.makes):
            return False
        return read_json(mark) == {"fingerprint": state, "is_done": True}

    def _run_step(self, step: Step, state: str) -> None:
        mark = self._mark(step)
        if mark.is_file() and read_json(mark)["fingerprint"] != state:
            for path in step.makes:  # of another command, or of other inputs
                _remove(path)
        write_json(mark, {"fingerprint": state, "is_done": False})
        log = self.folder / LOGS / f"{step.name}.log"
        log.unlink(missing_ok=True)
        for command in step.commands:
            if code := run_process(command, log, lambda: self.screen.progress(percent_of(log))):
                if self.screen.rewrite:
                    self.screen.rewrite("")
                raise StepFailed(step.title, code)
        if missing := [str(path) for path in step.makes if not path.exists()]:
            raise ValueError(f"{step.title}: {', '.join(missing)} is not there")
        write_json(mark, {"fingerprint": state, "is_done": True})

    def _mark(self, step: Step) -> Path:
        return self.folder / MARKS / f"{step.name}.json"


def digest_of_step(step: Step, folder: Path, needed: Sequence[str]) -> str:
    """Tell a step's results from those of another command or other inputs.

    Args:
        step: the step.
        folder: of the workflow; paths below it count by their place in it.
        needed: fingerprints of the steps that it needs.
    """
    commands = [command.argv for command in step.commands]
    text = json.dumps([commands, list(needed)]).replace(json.dumps(str(folder))[1:-1], "FOLDER")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_process(command: Command, log_file: Path, tick: Callable[[], object]) -> int:
    """Run a command to its end. It ends when this process does, on Linux even when that is killed.

    Args:
        command: the command.
        log_file: what it says is written at its end; the end of that is shown where the command fails.
        tick: called about twice a second.

    Returns:
        Its exit code.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    if command.output is not None:
        command.output.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ends:
        log = ends.enter_context(open(log_file, "ab"))
        log.write(f"$ {shlex.join(command.argv)}\n".encode(errors="surrogateescape"))
        log.flush()
        process = subprocess.Popen(
            command.full_argv(),
            env={**os.environ, **command.environment, LAUNCHER: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=log if command.output is None else ends.enter_context(open(command.output, "wb")),
            stderr=log,
            process_group=0,  # an interrupt is handed on below, once
        )
        ends.callback(_stop, process)  # after an interrupt; otherwise it has ended
        while (code := _wait(process)) is None:
            tick()
    if code:
        lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
        logging.getLogger(__name__).error("The end of %s:\n%s", log_file, "\n".join(lines))
    return code


def _wait(process: subprocess.Popen, seconds: float = 0.5) -> int | None:
    """Wait for a process. Returns its exit code, or None when the time is over."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _stop(process: subprocess.Popen) -> None:
    """End a process and those it started, if it runs: everything it writes is whole at any time."""
    if process.poll() is not None:
        return
    for number in (signal.SIGINT, signal.SIGKILL):  # the latter for what the former did not end
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        _wait(process, STOP_S)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
