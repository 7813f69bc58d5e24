"""Trains a role: `torchrun ... videomind/train/train.py --role grounder ...` (see scripts/pretrain).

Rerunning the same command continues from the newest complete checkpoint.
"""

import sys
from collections.abc import Sequence

from videomind.start_up import importing
from videomind.train.command_line.options import (
    CustomArguments,
    DataArguments,
    ModelArguments,
    TrainingOptions,
)
from videomind.train.command_line.usage import asks_for_help, usage_text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 2 for arguments or data that cannot be used.
    """
    if asks_for_help(argv):
        groups = (ModelArguments, DataArguments, CustomArguments, TrainingOptions)
        sys.stdout.write(usage_text("videomind train", __doc__, groups))
        return 0
    with importing():
        from videomind.train.command_line.arguments import parse_arguments
        from videomind.train.role_training import train
        from videomind.train.running import run_training

    return run_training(lambda: parse_arguments(argv), train)


if __name__ == "__main__":
    sys.exit(main())
