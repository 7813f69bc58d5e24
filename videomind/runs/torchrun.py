"""torchrun that ends with one line instead of a traceback when a process has already said what is wrong.

`python -m videomind.runs.torchrun TORCHRUN_ARGUMENTS`: `videomind launch` starts every run through it.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence

from videomind.runs.processes import LAUNCHER, STOP, pass_on
from videomind.start_up import importing


def main(argv: Sequence[str] | None = None) -> int:
    """Run torchrun.

    Returns:
        0, the exit code of the first process that failed, or 128 and the number of the signal that ended it.
    """
    with importing():
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import main as torchrun

    # Its own report of a failure is a screen long and says less than the process did.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[LAUNCHER] = str(os.getpid())
    signal.signal(STOP, pass_on)
    try:
        torchrun(list(sys.argv[1:] if argv is None else argv))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        reason = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        sys.stderr.write(f"The run stopped: process {rank} {reason} (its own message is above)\n")
        return code if code > 0 else 1
    except SignalException as error:  # Ctrl-C, or a scheduler's; the processes have got it too
        sys.stderr.write(f"The run stopped: it got {signal.Signals(error.sigval).name}\n")
        return 128 + error.sigval
    return 0


if __name__ == "__main__":
    sys.exit(main())
