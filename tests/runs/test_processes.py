"""How a process of a run ends. Covers `runs/processes.py`."""

import subprocess
import sys

import pytest
from helpers.runs import environment

# Stands for a library's thread that still runs while the interpreter is torn down.
ABORTING = """
import atexit, ctypes, sys, threading, time

libc = ctypes.CDLL(None)

def main():
    libc.__cxa_atexit(libc.abort, None, None)
    atexit.register(lambda: print("a handler"))
    threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
    print("main")
    CODE
"""


def run(tmp_path, code: str) -> subprocess.CompletedProcess:
    (tmp_path / "aborting.py").write_text(ABORTING.replace("CODE", code))
    argv = [sys.executable, "-m", "videomind.runs.processes", "aborting"]
    return subprocess.run(argv, cwd=tmp_path, env=environment(), capture_output=True, text=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's exit handlers")
@pytest.mark.parametrize("code", [0, 2, 75])
def test_what_is_done_is_not_undone_by_a_librarys_end(tmp_path, code):
    ended = run(tmp_path, f"return {code}")
    assert ended.returncode == code and ended.stderr == ""
    assert ended.stdout.splitlines() == ["main", "a thread", "a handler"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's exit handlers")
def test_an_error_ends_as_python_ends_it(tmp_path):
    ended = run(tmp_path, "raise KeyError('lost')")
    assert ended.returncode != 0 and "KeyError: 'lost'" in ended.stderr
