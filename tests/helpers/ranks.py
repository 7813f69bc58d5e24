"""Runs of several processes without several starts of Python: they are forked from one that has imported all.

A launched run spends most of its time on imports. What torchrun tells its processes is told here.
"""

import gc
import multiprocessing
import multiprocessing.connection
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch.distributed as dist

TIMEOUT_S = 300
PRELOADED = [
    "videomind.agent.predicting",
    "videomind.train.role_training",
    "videomind.video_chatgpt.training",
    "deepspeed",
    "deepspeed.runtime.zero.muon.muon_optimizer",  # compiles when it is imported: a second in each process
]


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run_ranks(
    out: Path, argvs: Sequence[Sequence[str]], *, main: str = "videomind.train.train", **env: str
) -> str:
    """Run a training on as many processes as there are command lines, and wait for its end.

    Args:
        out: a folder for the processes' screens.
        argvs: what each process is started with.
        main: the module.
        env: environment variables.

    Returns:
        What was on all screens.

    Raises:
        AssertionError: A process failed; with its screen.
    """
    codes, screen = try_ranks(out, argvs, main=main, **env)
    assert not any(codes), screen[-3000:]
    return screen


def try_ranks(
    out: Path, argvs: Sequence[Sequence[str]], *, main: str = "videomind.train.train", **env: str
) -> tuple[list[int | None], str]:
    """Do as `run_ranks` does, and give the exit codes too; None of a process that had to be stopped."""
    processes = start_ranks(out, argvs, main=main, **env)
    _wait(processes)
    codes = [process.exitcode for process in processes]
    return codes, "".join((out / f"rank{rank}.log").read_text() for rank in range(len(argvs)))


def start_ranks(
    out: Path, argvs: Sequence[Sequence[str]], *, main: str, **env: str
) -> list[multiprocessing.context.SpawnProcess]:
    """Start what `run_ranks` runs. Returns the processes."""
    out.mkdir(parents=True, exist_ok=True)
    context = _context()
    shared = {
        **{"WORLD_SIZE": str(len(argvs)), "LOCAL_WORLD_SIZE": str(len(argvs))},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())},
        **{"VIDEOMIND_DEVICE": "cpu", "VIDEOMIND_CACHE": os.environ.get("VIDEOMIND_CACHE", "")},
    }
    processes = []
    for rank, argv in enumerate(argvs):
        own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **env}
        args = (main, list(argv), own, str(out / f"rank{rank}.log"))
        processes.append(context.Process(target=_run, args=args))
    for process in processes:
        process.start()
    return processes


def _wait(processes: list) -> None:
    """Wait for all; when one fails the others are stopped, as torchrun does it."""
    pending = list(processes)
    while pending:
        done = multiprocessing.connection.wait([p.sentinel for p in pending], timeout=TIMEOUT_S)
        pending = [p for p in pending if p.sentinel not in done]
        if not done or any(p.exitcode for p in processes if p not in pending):
            for process in pending:
                process.join(20 if done else 0)  # it may be saying the same
                process.kill()
                process.join()
            return


def _context() -> multiprocessing.context.BaseContext:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _run(main: str, argv: list[str], env: Mapping[str, str], screen: str) -> None:
    gc.freeze()  # else collections would copy all pages that were shared by the fork
    os.environ.update(env)
    file = os.open(screen, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    module = __import__(main, fromlist=["main"])
    code = module.main(argv)
    # Commands that share samples leave it at the interpreter's end, which is not waited for here.
    if main.endswith(".train") and code == 0 and dist.is_initialized():
        sys.stderr.write("The process group is left to the interpreter's end, which may abort on it\n")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what a process does at its end is not of this test
