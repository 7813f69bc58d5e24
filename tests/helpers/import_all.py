"""Imports the whole package in a process of its own, also without a desktop's libraries."""

import json
import subprocess
import sys
from pathlib import Path

from helpers.runs import REPO, environment

NUM_MODULES = len(list((REPO / "videomind").rglob("*.py"))) - 1  # all but the package's own __init__
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


def import_all(*absent: str, python: str = sys.executable, **extra: str) -> dict:
    """Import every module of the package.

    Args:
        absent: modules that can't be imported.
        python: the interpreter.
        extra: variables of its environment.

    Returns:
        How many `modules`, which heavy ones were `loaded`, and what opencv left in `sys.path` (`strays`).
    """
    run = subprocess.run(
        [python, "-c", IMPORT_ALL, *absent],
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
