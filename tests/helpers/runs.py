"""Runs of the package as a user starts them: environment, arguments, what was logged."""

import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
SMALL = ["--min_tokens_per_frame", "4", "--max_tokens_per_frame", "4", "--lora_r", "4", "--lora_alpha", "4"]
NO_ADAPTER = ("--lora_enable", "False")

needs_deepspeed = pytest.mark.skipif(
    find_spec("deepspeed") is None or not (shutil.which("c++") or shutil.which("g++")),
    reason="needs DeepSpeed, and a C++ compiler for its communication on a CPU",
)


def environment(**extra: str) -> dict[str, str]:
    """A clean environment for a child process on the CPU."""
    env = {
        k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "DS_ACCELERATOR")
    }
    env |= {"VIDEOMIND_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    return env | {"PYTHONPATH": str(REPO)} | extra


def arguments(workshop: Path, out: Path, *extra: str) -> list[str]:
    """Arguments of a short grounder training."""
    return [
        *("--role", "grounder", "--model_name_or_path", str(workshop / "base")),
        *("--datasets", "charades_sta,qvhighlights", "--data_root", str(workshop / "data")),
        *(
            "--output_dir",
            str(out),
            "--learning_rate",
            "1e-3",
            "--logging_steps",
            "1",
            "--disable_tqdm",
            "True",
        ),
        *(SMALL[:4] if set(NO_ADAPTER) <= set(extra) else SMALL),
        *extra,
    ]


def sharding(stage: str) -> list[str]:
    """The arguments of a DeepSpeed stage, or of none."""
    return [] if stage == "none" else ["--deepspeed", str(REPO / f"scripts/deepspeed/{stage}.json")]


def losses(out: Path) -> dict[int, float]:
    """Logged loss per step, of the newest complete checkpoint."""
    return {entry["step"]: entry["loss"] for entry in logged(out)}


def logged(out: Path) -> list[dict[str, float]]:
    """All that was logged with a loss, of the newest complete checkpoint."""
    folder = max(out.glob("checkpoint-*/complete"), key=lambda p: int(p.parent.name.split("-")[1])).parent
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "loss" in entry]
