"""The benchmarks run, and what they claim holds at a smaller size."""

import re
import subprocess
import sys

import pytest
from helpers.runs import REPO, environment


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_real_shape(tmp_path, processes):
    """A base is made, trained, loaded and asked, at a small size."""
    command = [sys.executable, "benchmarks/real_shape.py", "--size", "small", "--folder", str(tmp_path)]
    command += ["--processes", processes]
    done = subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split("  ")[0] for line in done.stdout.splitlines()[2:]] == [
        "make the base",
        f"train 2 steps, {processes} process(es)",
        "load, ask one question",
    ]


@pytest.mark.slow
def test_annotations():
    """A large set costs no more per item, nor memory per worker, than a small one."""
    command = [sys.executable, "benchmarks/annotations.py", "--scale", "0.1"]
    done = subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True, check=True)
    rows = [re.split(" +", line.strip().replace(",", "")) for line in done.stdout.splitlines()[-2:]]
    small, large = ([float(number) for number in row] for row in rows)
    assert (small[0], large[0]) == (989, 48_100)
    assert large[3] < 2 * small[3]
    assert large[4] < 60 and large[4] < small[4] + 20
    assert large[2] < large[1] / 4  # from the cache


@pytest.mark.slow
def test_decoding():
    """Two checkouts read the same; against itself neither is the faster by much."""
    command = [sys.executable, "benchmarks/decoding.py", str(REPO), "--rounds", "2", "--seconds", "5"]
    done = subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = done.stdout.splitlines()[2:]
    assert len(rows) == 18 and all(row.split()[-3] == "2" for row in rows)
