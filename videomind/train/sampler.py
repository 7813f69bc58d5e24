"""The order of training samples: groups of one data type, seeded per epoch."""

import logging
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from videomind.dataset.mixture import Draw

log = logging.getLogger(__name__)


def group_order(data_types: Sequence[str], group_size: int, seed: int, epoch: int) -> list[int]:
    """Indices in groups of one type.

    The indices of each type are permuted and cut into full groups (the rest is left out this epoch), then
    the groups are permuted; the generator is seeded with seed + epoch.

    Args: data_types, one per sample; group_size, samples of a global micro-batch.
    """
    generator = torch.Generator().manual_seed(seed + epoch)
    by_type: dict[str, list[int]] = {}
    for index, kind in enumerate(data_types):
        by_type.setdefault(kind, []).append(index)
    groups: list[list[int]] = []
    for indices in by_type.values():
        order = torch.randperm(len(indices), generator=generator).tolist()
        full = len(indices) // group_size * group_size
        shuffled = [indices[i] for i in order[:full]]
        groups += [shuffled[i : i + group_size] for i in range(0, full, group_size)]
    return [i for g in torch.randperm(len(groups), generator=generator).tolist() for i in groups[g]]


class GroupSampler(Sampler[Draw]):
    """Yields (index, epoch) so that every global micro-batch holds one data type.

    Args: group_size, per-device batch times world size; data_types, one per sample; seed.
    Raises: ValueError when no type fills a group.
    """

    def __init__(self, data_types: Sequence[str], *, group_size: int, seed: int):
        self.data_types, self.group_size, self.seed, self.epoch = data_types, group_size, seed, 0
        counts = {kind: data_types.count(kind) for kind in dict.fromkeys(data_types)}
        for kind, count in counts.items():
            if count < group_size:
                log.warning(
                    "%d samples of type %s never fill a group of %d: none trains", count, kind, group_size
                )
        self._length = sum(count // group_size * group_size for count in counts.values())
        if not self._length:
            raise ValueError(
                f"No data type has {group_size} samples, the size of a global micro-batch ({counts}). "
                "Use fewer processes, a smaller batch, or --group_by_data_type False."
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before iterating."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Draw]:
        order = group_order(self.data_types, self.group_size, self.seed, self.epoch)
        return iter([Draw(index, self.epoch) for index in order])
