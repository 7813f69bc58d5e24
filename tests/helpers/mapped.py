"""Which tensors are a file's own pages, which all processes share, and which are memory of a process."""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor


def own_memory(tensors: Iterable[Tensor], folder: Path) -> int:
    """Count the bytes of tensors that are not pages of the files below a folder (on Linux)."""
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, *_, path = line.split(maxsplit=5)
        if path.startswith(str(folder.resolve())):
            ranges.append([int(address, 16) for address in addresses.split("-")])
    storages = {tensor.untyped_storage().data_ptr(): tensor.nbytes for tensor in tensors}
    return sum(size for at, size in storages.items() if not any(first <= at < end for first, end in ranges))
