"""What the processes of one run owe each other: to end when the one that started them is gone or asks for it.

`python -m videomind.runs.processes MODULE ARGUMENTS` runs `MODULE.main` as a process of `runs.torchrun`.
"""

import atexit
import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LAUNCHER = "VIDEOMIND_LAUNCHER"  # environment variable: the process id of torchrun
STOP = signal.SIGUSR1  # asks a training to end after a step, with a checkpoint


def die_with_parent(parent: int | None = None) -> None:
    """Let this process end when the one that started it is killed (on Linux).

    Args:
        parent: its process id; by default whichever it is now.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid() if parent is None else parent
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed already
        os.kill(os.getpid(), signal.SIGKILL)


def pass_on(number: int, _: FrameType | None) -> None:
    """Give a signal to the processes of a run (on Linux): torchrun starts each as the head of a session."""
    for listed in Path("/proc/self/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            if os.getsid(child) == child:
                os.kill(child, number)


def leave(ended: Sequence[int]) -> None:
    """End this process where Python has called all that was registered for its end.

    What would follow is of no use, and libraries' threads that still run may abort it: then a run that is
    done and saved counts as failed.

    Args:
        ended: the exit code, where main returned one.
    """
    if not ended:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return  # the interpreter's own end says so
    os._exit(ended[0])


def main() -> int:
    """Run a module's main, bound to the launcher before anything heavy is imported.

    torchrun starts processes in sessions of their own: after a SIGKILL of torchrun alone they would go on,
    hold their devices, and write beside the next run.
    """
    if launcher := os.environ.get(LAUNCHER):
        die_with_parent(int(launcher))
    signal.signal(STOP, signal.SIG_IGN)  # until a training has something to save
    module = sys.argv[1]
    sys.argv = sys.argv[1:]  # so that usage texts name the module
    ended: list[int] = []
    atexit.register(leave, ended)  # the first to be registered is the last to be called
    ended.append(importlib.import_module(module).main())
    return ended[0]


if __name__ == "__main__":
    sys.exit(main())
