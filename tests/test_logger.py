"""What a command says and ends with, on the screen, in its log file, and beside others' handlers."""

import argparse
import logging
import signal
import subprocess
import sys
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from helpers.machine import no_room
from helpers.runs import environment
from torch._utils import ExceptionWrapper

from videomind.faults import RunError
from videomind.logger import run_command, setup_logging


@pytest.fixture(autouse=True)
def own_logging(monkeypatch):
    """This process is alone, and what a test sets up is gone after it."""
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_ERROR_FILE"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(before):
        handler.close()
    root.handlers[:], root.level = before, level


def fail(error: BaseException):
    def run(_):
        raise error

    return run


def test_a_command_that_works_ends_with_0(capsys):
    seen = []
    assert run_command(lambda: "arguments", seen.append) == 0
    assert seen == ["arguments"] and capsys.readouterr().err == ""
    assert run_command(lambda: 7, lambda code: code) == 7


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("--x is 3"), "--x is 3"),
        (FileNotFoundError(2, "No such file", "a.json"), f"{Path.cwd()}/a.json: No such file"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_2(error, said, tmp_path, capsys):
    path = tmp_path / "new/run.log"
    assert run_command(lambda: None, fail(error), log_file=lambda _: path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"ERROR {said}")
    assert "Traceback" in path.read_text() and str(error) in path.read_text()


def test_an_error_may_have_an_exit_code_of_its_own(capsys):
    class TooColdError(Exception):
        pass

    codes = {TooColdError: 3}
    assert run_command(lambda: None, fail(TooColdError("brr")), exit_codes=codes) == 3
    assert run_command(lambda: None, fail(ValueError("bad")), exit_codes=codes) == 2
    assert [line.partition("ERROR ")[2] for line in capsys.readouterr().err.splitlines()] == ["brr", "bad"]


def test_arguments_that_do_not_parse_are_one_line_and_2(capsys):
    def parse():
        raise ValueError("--role cook. Did you mean 'grounder'?")

    assert run_command(parse, fail(AssertionError("not reached"))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--role cook" in line


def test_a_bug_keeps_its_trace():
    with pytest.raises(RuntimeError, match="a bug"):
        run_command(lambda: None, fail(RuntimeError("a bug")))


def test_usage_is_argparses_own(capsys):
    parser = argparse.ArgumentParser()
    with pytest.raises(SystemExit) as end:
        run_command(lambda: parser.parse_args(["--wrong"]), fail(AssertionError("not reached")))
    assert end.value.code == 2 and "usage" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    path = tmp_path / "file/run.log"
    assert run_command(lambda: None, fail(AssertionError("not reached")), log_file=lambda _: path) == 2
    assert f"Cannot write the log to {path}: " in capsys.readouterr().err


def test_other_processes_say_warnings_with_their_rank_and_write_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")

    def run(_):
        logging.getLogger("x").info("not said")
        logging.getLogger("x").warning("said")
        raise ValueError("why")

    assert run_command(lambda: None, run, log_file=lambda _: tmp_path / "run.log") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("[rank 2] ")[2] for line in lines] == ["WARNING said", "ERROR why"]
    assert not (tmp_path / "run.log").exists()


def end_as(rank: int, folder: Path, messages: list[str], starting: Barrier | None = None) -> None:
    """Be one of torchrun's processes, and end for a reason."""
    environment = {"RANK": str(rank), "WORLD_SIZE": "4"}
    environment["TORCHELASTIC_ERROR_FILE"] = str(folder / f"{rank}/error.json")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        if starting is not None:
            starting.wait()
        for message in messages:
            assert (
                run_command(lambda: None, fail(ValueError(message)), log_file=lambda _: folder / "log") == 2
            )


def test_processes_of_a_run_say_the_same_reason_once(tmp_path, capsys):
    for rank, message in ((1, "same\nin two lines"), (0, "same\nin two lines"), (2, "same"), (3, "same")):
        end_as(rank, tmp_path, [message])
    said = capsys.readouterr().err
    assert said.count("in two lines") == 1 and "[rank 1]" in said and "[rank 0]" not in said
    assert said.count("ERROR same") == 2
    assert "Traceback" in (tmp_path / "log").read_text()  # of rank 0, which did not say it


def test_processes_that_end_at_once_say_it_once(tmp_path, capfd):
    context = get_context("fork")
    starting = context.Barrier(4)
    messages = [f"reason {i}" for i in range(20)]
    ending = [context.Process(target=end_as, args=(i, tmp_path, messages, starting)) for i in range(4)]
    for process in ending:
        process.start()
    for process in ending:
        process.join()
    assert [process.exitcode for process in ending] == [0] * 4
    said = [line.partition("ERROR ")[2] for line in capfd.readouterr().err.splitlines()]
    assert sorted(said) == sorted(messages)


def test_a_second_setup_replaces_the_first_and_leaves_others(tmp_path, capsys, caplog):
    setup_logging(tmp_path / "a.log")
    setup_logging(tmp_path / "b.log")
    logging.getLogger("x").info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert "once" not in (tmp_path / "a.log").read_text() and "once" in (tmp_path / "b.log").read_text()
    assert caplog.messages == ["once"]  # pytest's handler is another's


def test_a_handler_of_another_that_writes_to_the_screen_says_nothing_twice(capsys):
    logging.getLogger().addHandler(logging.StreamHandler())
    setup_logging()
    logging.getLogger("x").warning("once")
    assert capsys.readouterr().err.count("once") == 1


ENDS = {  # how a run ends: its exit code, what is said
    "mended by the user": (ValueError("--x is 3"), 2, "--x is 3"),
    "a file": (PermissionError(13, "not allowed", "out/a"), 2, f"{Path.cwd()}/out/a: not allowed"),
    "a device": (RuntimeError("CUDA error: it fell off\nmore"), 1, "RuntimeError: CUDA error: it fell off"),
    "no memory": (MemoryError("no memory"), 1, "MemoryError: no memory"),
    "a bug": (KeyError("a bug"), 1, "KeyError: 'a bug'"),
    "a bug in tensors": (RuntimeError("shapes differ\nsee there"), 1, "RuntimeError: shapes differ"),
}


@pytest.mark.parametrize("case", ENDS)
def test_every_end_is_one_line_on_the_screen_and_a_trace_in_the_log(case, tmp_path, capsys):
    error, code, said = ENDS[case]
    path = tmp_path / "run.log"
    assert run_command(lambda: None, fail(error), log_file=lambda _: path) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    logged = path.read_text()
    assert said in logged and "Traceback" in logged and "in run" in logged


@pytest.mark.parametrize("case", [case for case in ENDS if not case.startswith("a bug")])
def test_what_is_no_bug_is_one_line_without_a_log_too(case, capsys):
    error, code, said = ENDS[case]
    assert run_command(lambda: None, fail(error)) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize("error", [RunError("the disk is gone"), ValueError("bad:\n in two lines")])
def test_an_error_of_a_loaders_process_is_said_without_its_trace(error, capsys):
    try:
        raise error
    except ValueError:
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    assert run_command(lambda: None, lambda _: wrapper.reraise()) == 2
    assert capsys.readouterr().err.partition("ERROR ")[2] == f"{error}\n"


def test_an_interrupt_is_one_line_and_ends_whoever_called_the_command(tmp_path):
    program = f"""
from pathlib import Path
from videomind.logger import run_command
def run(_):
    raise KeyboardInterrupt
run_command(lambda: None, run, log_file=lambda _: Path({str(tmp_path / "run.log")!r}))
print("not reached")
"""
    run = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert run.returncode == -signal.SIGINT and run.stdout == ""
    assert [line.partition("ERROR ")[2] for line in run.stderr.splitlines()] == ["Interrupted"]
    assert "in run" in (tmp_path / "run.log").read_text()


@pytest.mark.parametrize("waits", ["time.sleep(60)", "threading.Lock().acquire() and lock.acquire()"])
def test_sigterm_leaves_in_the_log_where_it_came(tmp_path, waits):
    program = f"""
import threading, time
from pathlib import Path
from videomind.logger import run_command
lock = threading.Lock()
lock.acquire()
def wait_for_ever(_):
    print("waiting", flush=True)
    {waits}
run_command(lambda: None, wait_for_ever, log_file=lambda _: Path({str(tmp_path / "run.log")!r}))
"""
    run = subprocess.Popen([sys.executable, "-c", program], env=environment(), stdout=subprocess.PIPE)
    assert run.stdout.readline() == b"waiting\n"
    run.terminate()
    assert run.wait(timeout=60) == -signal.SIGTERM
    run.stdout.close()
    assert "in wait_for_ever" in (tmp_path / "run.log").read_text()


def test_a_log_without_room_is_said_once_and_ends_nothing(tmp_path, capsys):
    def run(_):
        with no_room(1000):
            for _ in range(20):
                logging.getLogger("x").info("x" * 200)

    assert run_command(lambda: None, run, log_file=lambda _: tmp_path / "run.log") == 0
    said = capsys.readouterr().err
    assert said.count(f"No more is written to {tmp_path / 'run.log'}: File too large") == 1
    assert said.count("x" * 200) == 20 and "Traceback" not in said
