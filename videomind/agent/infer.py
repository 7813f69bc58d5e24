"""Runs the chain of roles over a data set, or over one video, and writes predictions.

`python -m videomind.agent.infer --dataset nextgqa --model_gnd_path PATH --pred_path OUT`, alone or under
torchrun. A rerun continues where the last one ended. Several runs, one after the other in the same processes,
are separated by a `+`: what takes seconds to import is imported once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from videomind.agent.options import build_parser, check_roles
from videomind.logger import run_command
from videomind.runs.failures import EXIT_CODE, TooManyFailedError
from videomind.start_up import importing

NEXT_RUN = "+"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 2 for arguments or data that cannot be used, 3 if too many samples failed. After a run
        whose code is not 0 no other one is begun.
    """
    for part in runs_of(sys.argv[1:] if argv is None else argv):
        code = run_command(
            lambda part=part: build_parser().parse_args(part),
            run,
            log_file=lambda args: Path(args.pred_path) / "infer.log",
            exit_codes={TooManyFailedError: EXIT_CODE},
            shares_work=True,
        )
        if code:
            return code
    return 0


def runs_of(argv: Sequence[str]) -> list[list[str]]:
    """Cut a command line at each `+` into those of single runs."""
    runs: list[list[str]] = [[]]
    for word in argv:
        if word == NEXT_RUN:
            runs.append([])
        else:
            runs[-1].append(word)
    return runs


def run(args: argparse.Namespace) -> None:
    """Predict what the command line names.

    Raises:
        ValueError: arguments or data cannot be used.
        TooManyFailedError: more samples failed than may.
    """
    if not 0 <= args.index < args.chunk:
        raise ValueError(f"--index {args.index} is not one of --chunk {args.chunk} (0 to {args.chunk - 1})")
    if bool(args.dataset) == bool(args.video):
        raise ValueError("Give either --dataset or --video")
    check_roles(args)
    with importing():
        from videomind.agent.predicting import run_dataset, run_video

    (run_dataset if args.dataset else run_video)(args)


if __name__ == "__main__":
    sys.exit(main())
