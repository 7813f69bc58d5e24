"""How many cores this process may use: the one place that decides how many workers and threads to start."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Count the cores that this process may run on, and no more than a container's share of processor time.

    The machine's own number is larger on nodes that a scheduler shares out, and in containers; that many
    threads only wait for each other.
    """
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux has
    allowed = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, int(min([allowed, *cgroup_shares(CGROUPS, OWN_CGROUP)])))


def cgroup_shares(root: Path, own: Path) -> Iterator[float]:
    """Find the cores' worth of time that Linux's control groups grant (version 2), from this group upwards.

    Args:
        root: where the groups are mounted.
        own: the file that names the group of this process.

    Yields:
        Quota / period of each group that has a limit (https://docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    if not own.is_file():
        return
    for line in own.read_text().splitlines():
        if line.startswith("0::/"):
            group = root / line.removeprefix("0::/")
            for folder in (group, *group.parents):
                yield from _share(folder / "cpu.max")


def _share(limit: Path) -> Iterator[float]:
    """Read the share that a `cpu.max` file grants.

    Yields:
        One figure, or none where there is no limit.
    """
    if limit.is_file():
        quota, period = limit.read_text().split()
        if quota != "max":
            yield int(quota) / int(period)
