"""A training that takes its samples as they come, the same ones for every size of a batch."""

from collections.abc import Iterator, Sequence

from videomind.train import role_training, train
from videomind.train.mixture import Draw
from videomind.train.sampler import EpochSampler


class InOrder(EpochSampler):
    """The first samples of a training set.

    Args:
        length: how many.
    """

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Draw]:
        return (Draw(index, self.epoch) for index in range(self.length))


def main(argv: Sequence[str]) -> int:
    """Train as the command does."""
    own = role_training.train
    role_training.train = lambda args: own(
        args, make_sampler=lambda args, mixture: InOrder(len(mixture) // 4 * 4)
    )
    try:
        return train.main(argv)
    finally:
        role_training.train = own
