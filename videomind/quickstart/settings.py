"""What both quickstarts share: where they run, and how a tiny training is shared among processes."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from videomind.device import Device, detect

SCRIPTS = Path(__file__).parents[2] / "scripts"
CPU_PROCESSES = 2


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a quickstart runs.

    Attributes:
        folder: everything goes there.
        device: what this machine has.
        say: prints a line.
    """

    folder: Path
    device: Device
    say: Callable[[str], None]

    @property
    def processes(self) -> int:
        """Processes of a training and of an evaluation."""
        return int(os.environ.get("NPROC_PER_NODE") or self.device.count or CPU_PROCESSES)

    def prepare_environment(self) -> None:
        """Set the variables that all commands of a quickstart inherit."""
        os.environ["NPROC_PER_NODE"] = str(self.processes)
        os.environ["PYTHON"] = sys.executable  # of scripts among the steps
        os.environ.setdefault("MASTER_PORT", str(20000 + os.getpid() % 20000))  # hardly used by other runs
        if self.device.kind == "cpu":
            os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}

    def batch(self, samples: int) -> dict[str, str]:
        """Share a step's samples among processes, by variables; a few more where they do not divide it."""
        each = -(-samples // self.processes)
        return {"BATCH_PER_DEVICE": str(each), "GLOBAL_BATCH": str(each * self.processes)}


def site_of(folder: Path, say: Callable[[str], None]) -> Site:
    """Look at this machine once."""
    return Site(folder=folder, device=detect(), say=say)
