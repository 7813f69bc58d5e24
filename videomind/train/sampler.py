"""The order of training samples: groups of one data type, seeded per epoch."""

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from videomind.train.mixture import Draw

log = logging.getLogger(__name__)


def group_order(data_types: Sequence[str] | np.ndarray, group_size: int, seed: int, epoch: int) -> np.ndarray:
    """Order indices in groups of one type.

    The indices of each type are permuted and cut into full groups (the rest is left out this epoch), then
    the groups are permuted; the generator is seeded with seed + epoch.

    Args:
        data_types: one per sample.
        group_size: samples of a global micro-batch.
        seed: of the run.
        epoch: from 0.

    Returns:
        (N,), indices.
    """
    generator = torch.Generator().manual_seed(seed + epoch)
    groups: list[np.ndarray] = []
    for indices in _by_type(data_types).values():
        order = torch.randperm(len(indices), generator=generator).numpy()
        full = len(indices) // group_size * group_size
        groups.append(indices[order[:full]].reshape(-1, group_size))
    every = np.concatenate(groups) if groups else np.zeros((0, group_size), dtype=np.int64)
    return every[torch.randperm(len(every), generator=generator).numpy()].ravel()


def _by_type(data_types: Sequence[str] | np.ndarray) -> dict[str, np.ndarray]:
    """Find the indices of each type, the types in the order in which they occur first."""
    kinds, first, codes = np.unique(np.asarray(data_types), return_index=True, return_inverse=True)
    return {str(kinds[i]): np.flatnonzero(codes == i) for i in np.argsort(first)}


class EpochSampler(Sampler[Draw]):
    """An order of samples, of a length that is known, which may be another one in every epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before iterating."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int:
        """Count the samples of an epoch."""


class GroupSampler(EpochSampler):
    """Yields (index, epoch) so that every global micro-batch holds one data type.

    Args:
        data_types: one per sample.
        group_size: per-device batch times world size.
        seed: of the order, with the epoch.

    Raises:
        ValueError: No type fills a group.
    """

    def __init__(self, data_types: Sequence[str] | np.ndarray, *, group_size: int, seed: int):
        self.data_types, self.group_size, self.seed = data_types, group_size, seed
        counts = {kind: len(indices) for kind, indices in _by_type(data_types).items()}
        for kind, count in counts.items():
            if count < group_size:
                log.warning(
                    "%d samples of type %s never fill a group of %d: none trains", count, kind, group_size
                )
        self._length = sum(count // group_size * group_size for count in counts.values())
        if not self._length:
            raise ValueError(
                f"No data type has {group_size} samples, the size of a global micro-batch ({counts}). "
                "Use fewer processes or a smaller batch."
            )

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Draw]:
        order = group_order(self.data_types, self.group_size, self.seed, self.epoch)
        return (Draw(int(index), self.epoch) for index in order)
