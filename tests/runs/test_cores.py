"""The cores of a process: affinity, and what a container is granted."""

import math
import os

import pytest

from videomind.runs import cores


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups to be filled: `groups(line of /proc/self/cgroup, {folder: cpu.max})`."""

    def fill(own: str, limits: dict[str, str]) -> None:
        for folder, limit in limits.items():
            (tmp_path / "cgroups" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "cgroups" / folder / "cpu.max").write_text(limit + "\n")
        (tmp_path / "own").write_text(own)
        monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroups")
        monkeypatch.setattr(cores, "OWN_CGROUP", tmp_path / "own")

    return fill


@pytest.fixture
def sixteen(monkeypatch):
    """A machine that lets this process run on 16 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/\n", {"": "max 100000"}, 16),
        ("0::/\n", {"": "400000 100000"}, 4),
        ("0::/\n", {}, 16),
        ("0::/a/b\n", {"a": "300000 100000", "a/b": "max 100000"}, 3),
        ("0::/a/b\n", {"a": "900000 100000", "a/b": "250000 50000"}, 5),
        ("0::/a\n", {"other": "100000 100000"}, 16),
        ("0::/\n", {"": "9900000 100000"}, 16),
        ("0::/\n", {"": "50000 100000"}, 1),
        ("4:cpu:/a\n1:name=systemd:/\n", {"a": "200000 100000"}, 16),
        ("4:memory:/a\n0::/a\n", {"a": "200000 100000"}, 2),
        ("0::/../elsewhere\n", {"": "200000 100000"}, 2),
    ],
)
def test_a_container_grants_no_more_than_its_share(groups, sixteen, own, limits, expected):
    groups(own, limits)
    assert cores.usable_cores() == expected


def test_the_share_is_whole_cores_and_at_least_one(groups, sixteen):
    for quota in range(10_000, 2_500_000, 90_000):
        groups("0::/\n", {"": f"{quota} 100000"})
        assert cores.usable_cores() == min(16, max(1, math.floor(quota / 100_000)))


def test_without_affinity_the_machine_counts(groups, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores, "OWN_CGROUP", tmp_path / "none")
    for count, expected in ((7, 7), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert cores.usable_cores() == expected
