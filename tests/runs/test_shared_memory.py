"""Loader workers and the shared memory that their samples need."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from helpers.runs import REPO, arguments, environment
from torch.utils.data import DataLoader, Dataset

from videomind.faults import RunError
from videomind.runs import shared_memory
from videomind.runs.shared_memory import loading, workers_that_fit
from videomind.train.mixture import Mixture


@pytest.mark.parametrize(
    ("share", "processes", "expected"),
    [(0.001, 1, 4), (0.2, 1, 1), (0.11, 1, 2), (0.5, 1, 0), (0.02, 4, 3), (0.0, 1, 4)],
)
def test_workers_fit_into_what_is_free(monkeypatch, tmp_path, caplog, share, processes, expected):
    """`share` is what a micro-batch takes of the free memory; three wait per worker, a fifth is kept free."""
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path)
    batch = int(shutil.disk_usage(tmp_path).free * share)
    count = workers_that_fit(4, batch_bytes=batch, prefetched=2, processes=processes)
    assert count == expected
    assert ("loader workers need" in caplog.text) == (expected < 4)


def test_without_shared_memory_or_workers_nothing_changes(monkeypatch, tmp_path):
    assert workers_that_fit(0, batch_bytes=1 << 60, prefetched=2, processes=1) == 0
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path / "none")
    assert workers_that_fit(4, batch_bytes=1 << 60, prefetched=2, processes=1) == 4


class Failing(Dataset):
    """A data set whose worker dies, never answers, or raises."""

    def __init__(self, how: str):
        self.how = how

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.how == "dies":
            os.kill(os.getpid(), signal.SIGBUS)
        elif self.how == "hangs":
            signal.pause()
        raise RuntimeError("of the data")


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("dies", RunError, r"does not deliver \(DataLoader worker"),
        ("hangs", RunError, r"does not deliver \(DataLoader timed out"),
        ("raises", RuntimeError, "Caught RuntimeError(.|\n)*of the data"),
    ],
)
def test_a_worker_that_cannot_deliver_ends_the_run(how, error, words):
    loader = DataLoader(Failing(how), num_workers=1, timeout=2)
    with pytest.raises(error, match=words), loading():
        next(iter(loader))


def test_a_sample_is_no_larger_than_told(workshop):
    """The bound that workers are counted by, against real samples."""
    from videomind.train.command_line.arguments import parse_arguments
    from videomind.train.role_training import build_mixture, build_model

    args = parse_arguments(arguments(workshop, workshop / "none"))
    mixture: Mixture = build_mixture(args, build_model(args).processor)
    sizes = [mixture[i].encoded.pixel_values.nbytes for i in range(4)]
    assert max(sizes) <= mixture.sample_bytes <= 40 * max(sizes)
    assert mixture[0].encoded.pixel_values.dtype == torch.uint8


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting needs root")
def test_a_training_with_workers_in_eight_megabytes(workshop, tmp_path):
    """As in a container; frames that do not fit are loaded by the training process."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "videomind.cli", "train", *arguments(workshop, out)]
    command += ["--dataloader_num_workers", "2", "--max_frames", "150", "--max_tokens_per_frame", "64"]
    small = 'mount -t tmpfs -o size=8m tmpfs /dev/shm && exec "$@"'
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", small, "sh", *command],
        env=environment(), cwd=REPO, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "0 worker(s) instead" in run.stderr and (out / "finished").is_file()
