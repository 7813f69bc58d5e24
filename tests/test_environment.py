"""What other launchers left in the environment, from every part of it to whole sets."""

import getpass
import json
import os
import stat
import subprocess
import sys
from itertools import combinations

import pytest
from helpers.runs import REPO, environment

from videomind.environment import (
    OF_NUMBERS,
    WHERE,
    WHO,
    check_processes,
    drop_foreign,
    drop_ranks,
    of_numbers,
    provide_home,
)
from videomind.logger import run_command

WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "5"}
PARTS = [part for size in range(len(WHOLE) + 1) for part in combinations(WHOLE, size)]


@pytest.mark.parametrize("part", PARTS, ids="+".join)
def test_parts_of_a_set_are_refused_by_name(part):
    environ = {name: WHOLE[name] for name in part}
    if set(part) == set(WHOLE) or not set(part) & set(WHO):
        return check_processes(environ)
    with pytest.raises(ValueError, match="in the environment without") as error:
        check_processes(environ)
    said = str(error.value)
    assert all(name in said for name in (*WHO, *WHERE) if name in WHO or name not in part)
    return None


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {**WHOLE, "RANK": "0", "LOCAL_RANK": "0"},
        {"RANK": ""},
        {"PMI_SIZE": "1"},
    ],
    ids=str,
)
def test_what_is_whole_is_used(environ):
    check_processes(environ)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RANK": "x"}, "RANK=x in the environment. Allowed: whole numbers"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE=-2"),
        ({"RANK": "2"}, "RANK=2 in the environment. Allowed with WORLD_SIZE=2"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        check_processes({**WHOLE, **change})


@pytest.mark.parametrize("size", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"])
def test_processes_of_mpi_are_refused_and_one_alone_is_not_followed(size):
    with pytest.raises(ValueError, match=f"{size}=4 .* MPI"):
        check_processes({size: "4"})
    environ = {size: "1", "ACCELERATE_MIXED_PRECISION": "bf16", "HOME": "/"}
    check_processes(environ)
    assert drop_foreign(environ) == ["ACCELERATE_MIXED_PRECISION=bf16", f"{size}=1"]
    assert environ == {"HOME": "/"}


def test_a_command_says_what_is_left_over_in_one_line(tmp_path):
    command = [sys.executable, "-m", "videomind", "data", "list"]
    infer = [sys.executable, "-m", "videomind", "infer", "--video", "x", "--pred_path", str(tmp_path)]
    run = subprocess.run(infer, env=environment(RANK="1"), capture_output=True, text=True)
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1
    assert "RANK=1 in the environment without WORLD_SIZE" in run.stderr
    run = subprocess.run(command, env=environment(ACCELERATE_X="1"), capture_output=True, text=True)
    assert run.returncode == 0 and "Not used, arguments say it instead: ACCELERATE_X=1" in run.stderr


def test_a_launcher_uses_none_of_them():
    command = [sys.executable, "-m", "videomind", "launch", "infer", "--show"]
    run = subprocess.run(command, env=environment(RANK="x", LOCAL_RANK="3"), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "not used: RANK=x, LOCAL_RANK=3" in run.stderr and "--nnodes 1" in run.stdout
    environ = dict(WHOLE)
    assert len(drop_ranks(environ)) == 3 and environ.keys() == set(WHERE)


def test_what_changes_numbers_is_said_in_the_head_of_the_log(tmp_path, monkeypatch):
    for name in OF_NUMBERS:
        monkeypatch.delenv(name, raising=False)
    assert of_numbers(os.environ) == []
    for name in OF_NUMBERS:
        monkeypatch.setenv(name, "1")
        assert of_numbers(os.environ) == [f"{name}=1"]
        path = tmp_path / f"{name}.log"
        assert (
            run_command(lambda: None, lambda _: 0, log_file=lambda _, path=path: path, shares_work=True) == 0
        )
        assert path.read_text().rstrip().endswith(f"The environment has a say in the numbers: {name}=1")
        monkeypatch.delenv(name)


HOMES = {  # what makes a home that is none
    "is not there": lambda folder: {"HOME": str(folder / "none/of/it")} | blocked(folder / "none"),
    "is a file": lambda folder: {"HOME": str(folder / "file")},
    "is the kernel's": lambda folder: {"HOME": "/proc"},
    "has a cache elsewhere": lambda folder: {"XDG_CACHE_HOME": str(folder / "file/cache")},
}


def blocked(path):
    """A file where a folder would have to be made."""
    path.write_text("")
    return {}


@pytest.mark.parametrize("case", HOMES)
def test_a_user_without_a_home_gets_a_folder_for_caches(case, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    for name in ("XDG_CACHE_HOME", "TRITON_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in HOMES[case](tmp_path).items():
        monkeypatch.setenv(name, value)
    own = provide_home(os.environ)
    assert own is not None and os.environ["XDG_CACHE_HOME"] == own == os.environ["TRITON_HOME"]
    assert os.access(own, os.W_OK) and stat.S_IMODE(os.stat(own).st_mode) == 0o700
    assert os.path.isdir(os.path.expanduser("~"))
    assert provide_home(os.environ) is None  # what is there now is used


def test_a_user_without_a_name_gets_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    assert provide_home(os.environ) is None and getpass.getuser() == "user54321"


def test_another_users_folder_is_not_taken(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with pytest.raises(ValueError, match="videomind-54321 is another user's"):
        provide_home(os.environ)


def test_cdpath_changes_no_script(tmp_path):
    """Only `cd` of a shell heeds it, and then says where it went."""
    (tmp_path / "scripts/evaluation").mkdir(parents=True)
    printing = tmp_path / "python"
    printing.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([os.getcwd(), sys.argv[1:]]))\n"
    )
    printing.chmod(0o755)
    env = environment(CDPATH=str(tmp_path), PYTHON=str(printing))
    for script in ("evaluation/eval_auto.sh", "evaluation/infer.sh", "launch.sh"):
        run = subprocess.run(
            ["bash", f"scripts/{script}", "2b", "nextgqa"], cwd=REPO, env=env, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        assert {json.loads(line)[0] for line in run.stdout.splitlines()} == {os.path.realpath(REPO)}
