"""The training command with an order of samples that a test chooses."""

from collections.abc import Callable, Sequence

from videomind.train import role_training, train
from videomind.train.command_line.arguments import Arguments
from videomind.train.mixture import Mixture
from videomind.train.sampler import EpochSampler


def train_in_order(argv: Sequence[str], make_sampler: Callable[[Arguments, Mixture], EpochSampler]) -> int:
    """Train as the command does. Returns: its exit code."""
    own = role_training.train
    role_training.train = lambda args: own(args, make_sampler=make_sampler)
    try:
        return train.main(argv)
    finally:
        role_training.train = own
