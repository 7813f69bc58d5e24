"""Importing the whole package without a desktop's libraries, and with an opencv that fails for their lack."""

import subprocess
import sys

import pytest
from helpers.import_all import NUM_MODULES, failing_opencv, import_all
from helpers.runs import REPO, environment


@pytest.mark.parametrize(
    "absent",
    [(), pytest.param(("cv2", "h5py", "nncore"), marks=pytest.mark.slow)],
    ids=("as installed", "absent"),
)
def test_no_module_loads_what_brings_a_desktop(absent):
    found = import_all(*absent)
    assert found["loaded"] == []
    assert found["modules"] == NUM_MODULES


@pytest.mark.slow
def test_an_opencv_that_fails_harms_nothing(tmp_path):
    found = import_all(PYTHONPATH=f"{failing_opencv(tmp_path)}:{REPO}")
    assert (found["loaded"], found["strays"]) == ([], [])


def test_the_failing_opencv_is_one(tmp_path):
    """The test above means nothing unless importing it fails and breaks `typing` for child processes."""
    code = """
import subprocess, sys
try:
    import cv2
except ImportError:
    pass
path = {"PYTHONPATH": ":".join(sys.path)}
sys.exit(subprocess.run([sys.executable, "-c", "import typing"], env=path).returncode)
"""
    env = environment(PYTHONPATH=f"{failing_opencv(tmp_path)}:{REPO}")
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode and "cv2" in run.stderr
