"""Importing the whole package without a desktop's libraries, and with an opencv that fails for their lack."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.runs import REPO, environment

IMPORT_ALL = """
import importlib, json, pkgutil, sys
for name in sys.argv[1:]:
    sys.modules[name] = None
import videomind
modules = [module.name for module in pkgutil.walk_packages(videomind.__path__, "videomind.")]
for name in modules:
    importlib.import_module(name)
loaded = sorted({"cv2", "h5py", "nncore"} & {name for name, module in sys.modules.items() if module})
strays = [folder for folder in sys.path if folder.endswith("cv2")]
print(json.dumps({"modules": len(modules), "loaded": loaded, "strays": strays}))
"""
# What opencv-python does when it is imported without libxcb: its folder stays first in sys.path, where
# `import typing` of any later process finds cv2/typing.
FAILING_OPENCV = """
import os, sys
sys.path.insert(0, os.path.dirname(__file__))
raise ImportError("libxcb.so.1: cannot open shared object file: No such file or directory")
"""


def import_all(*absent: str, **extra: str) -> dict:
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *absent],
        env=environment(**extra),
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def failing_opencv(folder: Path) -> Path:
    """A folder for PYTHONPATH with a cv2 that cannot be imported."""
    (folder / "cv2/typing").mkdir(parents=True)
    (folder / "cv2/__init__.py").write_text(FAILING_OPENCV)
    (folder / "cv2/typing/__init__.py").write_text("import cv2.libxcb\n")
    return folder


@pytest.mark.parametrize("absent", [(), ("cv2", "h5py", "nncore")], ids=("as installed", "absent"))
def test_no_module_loads_what_brings_a_desktop(absent):
    found = import_all(*absent)
    assert found["loaded"] == []
    assert found["modules"] == len(list((REPO / "videomind").rglob("*.py"))) - 1


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
