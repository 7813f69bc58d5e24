"""How many samples of a run may fail: above that share its command says so, with an exit code of its own."""

import argparse

MAX_BAD_SHARE = 0.1
EXIT_CODE = 3  # of a run that is complete, but for too many failures


class TooManyFailedError(Exception):
    """More samples of a run failed than may. What the run made is complete, and says which and why."""


def add_max_bad_share(parser: argparse._ActionsContainer) -> None:
    """Add the argument."""
    parser.add_argument(
        "--max_bad_share",
        type=_share,
        default=MAX_BAD_SHARE,
        help=f"share of samples that may fail; above it the exit code is {EXIT_CODE} (default %(default)s)",
    )


def check_failures(failed: int, samples: int, max_bad_share: float) -> None:
    """Refuse a run too many of whose samples failed.

    Args:
        failed: how many did.
        samples: how many there are.
        max_bad_share: the largest share that may fail.

    Raises:
        TooManyFailedError: it is larger.
    """
    if failed and failed / samples > max_bad_share:
        raise TooManyFailedError(
            f"{failed} of {samples} samples failed, more than --max_bad_share {max_bad_share:g}. "
            "Their records say why ('error')."
        )


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share (0 to 1)")
    return share
