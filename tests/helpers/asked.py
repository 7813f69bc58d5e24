"""A training that is asked to stop: its last process signals itself when a sample is drawn."""

import os
import signal
from collections.abc import Iterator, Sequence

from helpers.own_order import train_in_order
from videomind.logger import rank, world_size
from videomind.train.mixture import Draw
from videomind.train.role_trainer import group_sampler
from videomind.train.sampler import EpochSampler

AT = "ASKED_AT"  # environment variable: the index of the sample; there is none by default


class AskingSampler(EpochSampler):
    """The order of another sampler."""

    def __init__(self, own: EpochSampler):
        self.own = own

    def __len__(self) -> int:
        return len(self.own)

    def set_epoch(self, epoch: int) -> None:
        self.own.set_epoch(epoch)

    def __iter__(self) -> Iterator[Draw]:
        for index, draw in enumerate(self.own):
            if str(index) == os.environ.get(AT) and rank() == world_size() - 1:
                os.kill(os.getpid(), signal.SIGUSR1)
            yield draw


def main(argv: Sequence[str]) -> int:
    """Train as the command does."""
    return train_in_order(argv, lambda args, mixture: AskingSampler(group_sampler(args, mixture)))
