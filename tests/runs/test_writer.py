"""A folder has one writer at a time; one that was killed holds it no more."""

import os
import signal
import subprocess
import sys

import pytest
from helpers.runs import environment

from videomind.runs.writer import only_writer

HOLD = """
import sys
from pathlib import Path
from videomind.runs.writer import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_refused_with_who_holds_it(tmp_path, holder):
    with (
        pytest.raises(
            ValueError, match=rf"{tmp_path} is written by another run, process {holder.pid} on .* since"
        ),
        only_writer(tmp_path, patience_s=0.1),
    ):
        pass


@pytest.mark.parametrize("end", ["killed", "ended"])
def test_what_a_run_held_is_free_when_it_is_gone(tmp_path, holder, end):
    if end == "killed":
        os.kill(holder.pid, signal.SIGKILL)
    holder.stdin.close()
    holder.wait()
    with only_writer(tmp_path, patience_s=0):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".writer.json", ".writer.lock"]
    with only_writer(tmp_path, patience_s=0):
        pass


def test_it_waits_for_a_run_that_is_ending(tmp_path, holder):
    holder.stdin.close()
    with only_writer(tmp_path, patience_s=60):
        assert holder.wait() == 0
