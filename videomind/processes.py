"""What the processes of one run owe each other: to end when the one that started them is gone."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


LAUNCHER = "VIDEOMIND_LAUNCHER"  # environment variable: the process id of torchrun


def die_with_parent(parent: int | None = None) -> None:
    """Let this process end when the one that started it is killed (on Linux).

    Args: parent, its process id; by default whichever it is now.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid() if parent is None else parent
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed already
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_launcher() -> None:
    """The same for the processes of `videomind.launch`: torchrun starts them in sessions of their own.

    After a SIGKILL of torchrun alone they would go on, hold their devices, and write beside the next run.
    """
    if launcher := os.environ.get(LAUNCHER):
        die_with_parent(int(launcher))
