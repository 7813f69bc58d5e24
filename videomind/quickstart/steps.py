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
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from videomind.files import read_json, write_json

MARKS = "steps"  # folder of the marks, below the workflow's own
TAIL = 20  # lines of a log that are shown when its command fails


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
        log: file that its output goes to, instead of the screen; the end of it is shown on failure.
        output: file that its standard output alone goes to, where there is no log.
        environment: variables that are set for it.
    """

    argv: tuple[str, ...]
    log: Path | None = None
    output: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def full_argv(self) -> list[str]:
        """Write the program and its arguments as they are started."""
        own = self.argv[0] == "videomind"
        return [sys.executable, "-m", "videomind.cli", *self.argv[1:]] if own else list(self.argv)


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
    """

    name: str
    title: str
    makes: tuple[Path, ...]
    commands: tuple[Command, ...]
    needs: tuple[str, ...] = ()
    note: str = ""


@dataclass(kw_only=True)
class Workflow:
    """Steps in their order.

    Attributes:
        folder: everything goes there; it may be moved as a whole.
        steps: each needs only steps before it.
        say: prints a line.
        start: when it started, in seconds of the monotonic clock.
    """

    folder: Path
    steps: Sequence[Step]
    say: Callable[[str], None]
    start: float = field(default_factory=time.monotonic)

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
            fingerprints[step.name] = digest_of_step(
                step, self.folder, [fingerprints[name] for name in step.needs]
            )
            self.announce(step.title)
            if step.note:
                self.say(step.note)
            if self.is_done(step, fingerprints[step.name]):
                self.say(f"Done already: {', '.join(map(str, step.makes))}")
                continue
            if before and step.name in before:
                before[step.name]()
            self._run_step(step, fingerprints[step.name])

    def announce(self, text: str) -> None:
        """Say what comes now, with the seconds since the start."""
        self.say(f"\n[{time.monotonic() - self.start:4.0f} s] {text}")

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
        for command in step.commands:
            if code := run_process(command):
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


def run_process(command: Command) -> int:
    """Run a command to its end.

    Returns:
        Its exit code.
    """
    path = command.log or command.output
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if path is None else open(path, "wb") as file:
        code = subprocess.run(
            command.full_argv(),
            env={**os.environ, **command.environment},
            stdout=file,
            stderr=subprocess.STDOUT if command.log is not None else None,
            check=False,
        ).returncode
    if code and command.log is not None:
        lines = command.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
        logging.getLogger(__name__).error("The end of %s:\n%s", command.log, "\n".join(lines))
    return code


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
