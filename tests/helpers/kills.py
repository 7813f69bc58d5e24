"""Kills at a moment that is known: when a file of a run has got its name, whatever the machine's speed."""

import os
import signal
import subprocess
from pathlib import Path

from helpers.runs import REPO, environment

HOOK = Path(__file__).parent / "killing"  # holds what Python runs at its start


def run_killed(command: list[str], after: Path, *, whom: str = "group", **extra: str) -> str:
    """Run a command that is killed; every process of it has ended then.

    Args:
        command: runs Python.
        after: the file, or a pattern of its path; atomic writes give it its name.
        whom: the process `group`, or the `parent` alone of the process that wrote the file.
        extra: environment variables.

    Returns:
        What all of its processes said, until the last of them ended.
    """
    path = os.pathsep.join(map(str, (HOOK, REPO)))
    env = environment(PYTHONPATH=path, KILL_AFTER=str(after), KILLED=whom, **extra)
    run = subprocess.run(
        command,
        env=env,
        cwd=REPO,
        stdout=subprocess.PIPE,  # its end is the end of whoever holds it
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert run.returncode == -signal.SIGKILL, run.stdout[-3000:]
    return run.stdout
