"""A run that is asked to stop ends with a checkpoint, and goes on from it as if it had not been asked.

Covers `runs/processes.py`, which passes the signal on.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import asked
from helpers.ranks import free_port, run_ranks, try_ranks
from helpers.runs import REPO, arguments, environment, losses
from safetensors.torch import load_file

from videomind.train.checkpoints import complete_checkpoints
from videomind.train.train import main
from videomind.train.trainer import FINISHED

STEPS = ("--max_steps", "5", "--save_steps", "100", "--dataloader_num_workers", "0")
SAVED = ("pytorch_model.safetensors", "grounder/adapter_model.safetensors")


def check_stopped(out, screen: str) -> None:
    """The run has a checkpoint of fewer steps than it was to take, and nothing that says it ended."""
    (checkpoint,) = complete_checkpoints(out)
    step = int(checkpoint.name.split("-")[1])
    assert 0 < step < 5 and f"Stopped after step {step}, as asked: a rerun goes on from there" in screen
    assert not (out / FINISHED).exists() and not (out / "config.json").exists()
    assert "Traceback" not in screen


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_goes_on_bit_for_bit(workshop, tmp_path, monkeypatch, capfd):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(arguments(workshop, whole, *STEPS)) == 0
    monkeypatch.setenv(asked.AT, "2")
    capfd.readouterr()
    assert asked.main(arguments(workshop, cut, *STEPS)) == os.EX_TEMPFAIL
    check_stopped(cut, capfd.readouterr().err)
    assert main(arguments(workshop, cut, *STEPS)) == 0
    assert losses(cut) == losses(whole) and sorted(losses(whole)) == [1, 2, 3, 4, 5]
    for name in SAVED:
        ours, theirs = load_file(whole / name), load_file(cut / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours), name


def test_a_run_that_is_asked_in_its_last_step_ends_as_any(workshop, tmp_path, monkeypatch):
    monkeypatch.setenv(asked.AT, "1")
    assert asked.main(arguments(workshop, tmp_path, "--max_steps", "1", *STEPS[2:])) == 0
    assert (tmp_path / FINISHED).is_file()


@pytest.mark.slow
def test_if_one_process_is_asked_all_stop(workshop, tmp_path):
    argvs = [arguments(workshop, tmp_path / "out", *STEPS, "--per_device_train_batch_size", "1")] * 2
    codes, screen = try_ranks(tmp_path / "1", argvs, main="helpers.asked", **{asked.AT: "4"})
    assert codes == [os.EX_TEMPFAIL] * 2, screen[-3000:]
    check_stopped(tmp_path / "out", screen)
    run_ranks(tmp_path / "2", argvs)
    assert sorted(losses(tmp_path / "out")) == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_the_launcher_passes_it_on(workshop, tmp_path):
    """It is the launcher that Slurm signals; before the first step nothing is lost, and nothing ends."""
    out = tmp_path / "out"
    argv = arguments(workshop, out, "--max_steps", "100000", "--save_steps", "1", "--save_total_limit", "1")
    env = environment(NPROC_PER_NODE="2", GLOBAL_BATCH="2", DEEPSPEED="none", MASTER_PORT=str(free_port()))
    command = [sys.executable, "-m", "videomind.cli", "launch", "train", *argv]
    with subprocess.Popen(command, env=env, cwd=REPO, stderr=subprocess.PIPE, text=True) as run:
        while run.poll() is None and not list(out.glob("checkpoint-*/complete")):
            time.sleep(0.2)
        run.send_signal(signal.SIGUSR1)
        screen = run.stderr.read()
    assert run.returncode == os.EX_TEMPFAIL, screen[-3000:]
    assert "as asked: a rerun goes on from there" in screen and "Traceback" not in screen
    assert complete_checkpoints(out) and not (out / FINISHED).exists()
