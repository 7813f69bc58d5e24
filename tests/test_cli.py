"""The command: its sub-commands, and `python -m videomind`."""

import importlib
import subprocess
import sys

import pytest
from helpers.runs import REPO, environment

from videomind.cli import COMMANDS, main, usage


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_main(name):
    assert callable(importlib.import_module(COMMANDS[name][0]).main)


def test_the_package_runs_as_the_command():
    run = subprocess.run(
        [sys.executable, "-m", "videomind"], cwd=REPO, env=environment(), capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, usage())


def test_an_unknown_command_gives_the_nearest(capsys):
    assert main(["evaluat"]) == 2
    assert "Unknown command 'evaluat'" in capsys.readouterr().err
