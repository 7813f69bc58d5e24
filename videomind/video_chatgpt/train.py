"""Trains Video-ChatGPT: `torchrun ... videomind/video_chatgpt/train.py ...` (see scripts/pretrain).

Rerunning the same command continues from the newest complete checkpoint.
"""

import sys
from collections.abc import Sequence

from videomind.start_up import importing
from videomind.train.command_line.options import TrainingOptions
from videomind.train.command_line.usage import asks_for_help, usage_text
from videomind.video_chatgpt.options import VideoDataArguments, VideoModelArguments, VideoTrainingOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 2 for arguments or data that cannot be used.
    """
    if asks_for_help(argv):
        groups = (VideoModelArguments, VideoDataArguments, VideoTrainingOptions, TrainingOptions)
        sys.stdout.write(usage_text("videomind train-chat", __doc__, groups))
        return 0
    with importing():
        from videomind.train.running import run_training
        from videomind.video_chatgpt.arguments import parse_arguments
        from videomind.video_chatgpt.training import train

    return run_training(lambda: parse_arguments(argv), train)


if __name__ == "__main__":
    sys.exit(main())
