"""Kills a program as soon as a file has got its name; Python runs this at its start (see helpers.kills).

$KILL_AFTER is a pattern of its path. $KILLED says who dies: the process `group`, or the `parent` alone.
"""

import fnmatch
import os
import signal
import sys

PATTERN = os.environ.get("KILL_AFTER", "")
state = {"has_come": False}


def watch(event: str, args: tuple) -> None:
    """Wait for the file; the next event after it is a moment at which it is there."""
    if state["has_come"]:
        state["has_come"] = False
        if os.environ["KILLED"] == "group":
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getppid(), signal.SIGKILL)
    elif event == "os.rename" and fnmatch.fnmatch(os.path.abspath(os.fsdecode(args[1])), PATTERN):
        state["has_come"] = True


if PATTERN:
    sys.addaudithook(watch)
