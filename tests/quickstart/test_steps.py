"""Steps of a job: what runs again, what goes on, what is deleted.

Covers `quickstart/command.py` and `quickstart/settings.py`.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from videomind.quickstart.command import build_parser, clear
from videomind.quickstart.screen import Screen
from videomind.quickstart.settings import site_of
from videomind.quickstart.steps import Command, Step, StepFailed, Workflow, digest_of_step

LOCK = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX)"
# Interrupts the one that started it, when it and a child of its own hold a lock.
FAMILY = f"""
import os, subprocess, time
{LOCK}
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep, pass_fds=[file.fileno()])
os.kill(os.getppid(), int(sys.argv[2]))
time.sleep(600)
"""
DRIVER = """
import signal, sys
from pathlib import Path
from videomind.quickstart import command
from videomind.quickstart.steps import Command, Step, Workflow

def run(site, args):
    argv = (sys.executable, "-c", sys.argv[2], str(site.folder / "lock"), sys.argv[3])
    step = Step(name="a", title="a", makes=(site.folder / "a",), commands=(Command(argv=argv),))
    Workflow(folder=site.folder, steps=[step], screen=command.screen_of(site)).run()

command.run_agent = run
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
sys.exit(command.main(["--dir", sys.argv[1]]))
"""
APPEND = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"


def step(folder: Path, name: str, text: str = "x", needs: tuple[str, ...] = (), **fields) -> Step:
    """A step that appends a text to its file."""
    argv = (sys.executable, "-c", APPEND, str(folder / name), text)
    return Step(
        **{"name": name, "title": name, "makes": (folder / name,), "needs": needs}
        | {"commands": (Command(argv=argv),)}
        | fields
    )


def run(folder: Path, *steps: Step) -> list[str]:
    """Run a job; returns what was said."""
    said: list[str] = []
    Workflow(folder=folder, steps=steps, screen=Screen(say=said.append)).run()
    return said


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_what_is_done_is_not_run_again(tmp_path):
    steps = (step(tmp_path, "a"), step(tmp_path, "b", needs=("a",)))
    run(tmp_path, *steps)
    said = run(tmp_path, *steps)
    assert texts(tmp_path) == {"a": "x", "b": "x"}
    assert sum("done already" in line for line in said) == 2


def test_another_command_runs_and_so_does_what_needs_it(tmp_path):
    run(tmp_path, step(tmp_path, "a"), step(tmp_path, "b", needs=("a",)), step(tmp_path, "c"))
    run(tmp_path, step(tmp_path, "a", "y"), step(tmp_path, "b", needs=("a",)), step(tmp_path, "c"))
    assert texts(tmp_path) == {"a": "y", "b": "x", "c": "x"}  # a and b anew, c left


def test_what_is_missing_is_made_again(tmp_path):
    steps = (step(tmp_path, "a"), step(tmp_path, "b"))
    run(tmp_path, *steps)
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("kept")
    run(tmp_path, *steps)
    assert texts(tmp_path) == {"a": "x", "b": "kept"}


def test_a_step_that_failed_goes_on_with_what_it_has(tmp_path):
    broken = Command(argv=(sys.executable, "-c", "raise SystemExit(3)"))
    good = step(tmp_path, "a")
    with pytest.raises(StepFailed) as failed:
        run(tmp_path, step(tmp_path, "a", commands=(*good.commands, broken)))
    assert failed.value.code == 3 and texts(tmp_path) == {"a": "x"}
    with pytest.raises(StepFailed):
        run(tmp_path, step(tmp_path, "a", commands=(*good.commands, broken)))
    assert texts(tmp_path) == {"a": "xx"}  # nothing was deleted in between
    run(tmp_path, good)
    assert texts(tmp_path) == {"a": "x"}  # another command: what the failed one left is gone


def test_what_is_there_without_a_mark_is_left(tmp_path):
    (tmp_path / "a").write_text("mine ")
    run(tmp_path, step(tmp_path, "a"))
    assert texts(tmp_path) == {"a": "mine x"}


def test_a_step_that_makes_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="a: .*other is not there"):
        run(tmp_path, step(tmp_path, "a", makes=(tmp_path / "other",)))


def test_a_job_may_move_as_a_whole(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        folder.mkdir()
    assert digest_of_step(step(first, "a"), first, []) == digest_of_step(step(second, "a"), second, [])
    assert digest_of_step(step(first, "a"), first, ["p"]) != digest_of_step(step(first, "a"), first, [])


def test_output_goes_to_files_and_the_end_of_a_log_is_shown(tmp_path, caplog):
    shout = (sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)")
    said = step(tmp_path, "a", commands=(Command(argv=shout, output=tmp_path / "a"),))
    run(tmp_path, said)
    assert texts(tmp_path) == {"a": "out\n"}
    fail = (sys.executable, "-c", "print('why'); raise SystemExit(2)")
    with pytest.raises(StepFailed):
        run(tmp_path, step(tmp_path, "b", commands=(Command(argv=fail),)))
    assert "why" in caplog.text and "why" in (tmp_path / "logs/b.log").read_text()


def test_only_a_folder_of_a_quickstart_is_cleared(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="not the folder of a quickstart"):
        clear(tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    (tmp_path / "job").mkdir()
    run(tmp_path / "job", step(tmp_path / "job", "a"))
    clear(tmp_path / "job")
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_at_once_and_says_how_to_go_on(tmp_path, number):
    argv = [sys.executable, "-c", DRIVER, str(tmp_path / "job"), FAMILY, str(int(number))]
    run = subprocess.run(argv, capture_output=True, text=True)
    assert run.returncode == 130 and "The same command goes on from here" in run.stderr
    assert "Traceback" not in run.stderr
    # The lock is free once all of them have ended.
    subprocess.run([sys.executable, "-c", LOCK, str(tmp_path / "job/lock")], check=True, timeout=60)


@pytest.mark.parametrize("name", ["steps", "verifier_steps", "planner_steps"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "7"])
def test_a_zero_is_not_taken_for_the_usual_length(monkeypatch, capsys, name, value):
    """Of the command line, and of the environment."""
    monkeypatch.setenv(f"QUICKSTART_{name.upper()}", value)
    for argv in ([], [f"--{name}={value}"]):
        if value == "7":
            assert getattr(build_parser().parse_args(argv), name) == 7
            continue
        with pytest.raises(SystemExit):
            build_parser().parse_args(argv)
        assert f"'{value}' is no whole number from 1" in capsys.readouterr().err


def test_scripts_among_the_steps_run_this_python(tmp_path):
    """`videomind quickstart` of an environment that is not activated, or beside one that is."""
    with mock.patch.dict(os.environ, {"PYTHON": "/usr/bin/another", "VIDEOMIND_DEVICE": "cpu"}):
        site_of(tmp_path, print).prepare_environment()
        assert os.environ["PYTHON"] == sys.executable
