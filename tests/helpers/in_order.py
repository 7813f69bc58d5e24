"""A training that takes its samples as they come, the same ones for every size of a batch."""

from collections.abc import Iterator, Sequence

from helpers.own_order import train_in_order
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
    return train_in_order(argv, lambda args, mixture: InOrder(len(mixture) // 4 * 4))
