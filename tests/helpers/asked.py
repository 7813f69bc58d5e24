"""A training that is asked to stop: its last process signals itself when a sample is drawn."""

import os
import signal
from collections.abc import Iterator, Sequence

from videomind.logger import rank
from videomind.train import role_training, train
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
            if str(index) == os.environ.get(AT) and rank() == int(os.environ.get("WORLD_SIZE", "1")) - 1:
                os.kill(os.getpid(), signal.SIGUSR1)
            yield draw


def main(argv: Sequence[str]) -> int:
    """Train as the command does."""
    own = role_training.train
    role_training.train = lambda args: own(
        args, make_sampler=lambda args, mixture: AskingSampler(group_sampler(args, mixture))
    )
    try:
        return train.main(argv)
    finally:
        role_training.train = own
