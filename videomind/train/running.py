"""A training as a process: from its arguments to its exit code, and what is refused before it begins."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from videomind.device import detect
from videomind.files import write_text
from videomind.logger import rank, run_command
from videomind.runs.processes import die_with_parent
from videomind.runs.writer import only_writer
from videomind.train.callbacks import Stopped
from videomind.train.command_line.arguments import TrainingArguments

RECIPE = "recipe.yaml"  # what a run was started with


def run_training(parse: Callable[[], Any], train: Callable[[Any], None]) -> int:
    """Run a training's command: parse, log to the output folder, train, report errors.

    Args:
        parse: gives the arguments, with `training` and `recipe` among them.
        train: runs them to the end.

    Returns:
        The exit code: 2 for arguments or data that cannot be used, 75 when it was asked to stop.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()  # plain torchrun would leave this process behind when it is killed

    def run(args: Any) -> None:
        if rank() != 0:
            train(args)
            return
        with only_writer(Path(args.training.output_dir)):
            write_text(Path(args.training.output_dir) / RECIPE, args.recipe)
            train(args)

    was_there = dist.is_initialized()
    code = run_command(
        parse,
        run,
        log_file=lambda args: Path(args.training.output_dir) / "train.log",
        exit_codes={Stopped: os.EX_TEMPFAIL},
        shares_work=True,
    )
    if code in (0, os.EX_TEMPFAIL) and dist.is_initialized() and not was_there:
        dist.destroy_process_group()  # left to the interpreter's end, a process may abort on it
    return code


def refuse_data_parallel(training: TrainingArguments) -> None:
    """Refuse one process for several devices, which transformers would run by `nn.DataParallel`.

    That copies the model to every device in every step, and knows neither our batches nor DeepSpeed.

    Raises:
        ValueError: Names the command that is right.
    """
    if training.n_gpu > 1:
        raise ValueError(
            f"One process was started, but {training.n_gpu} devices are visible. Start it by "
            f"`videomind launch train ...` or `torchrun --nproc_per_node {training.n_gpu} ...`, or show it "
            f"one device ({detect().visible_variable}=0)."
        )


def init_communication(training: TrainingArguments) -> None:
    """Make the process group, which ZeRO-3 needs before weights load, as it shards them meanwhile."""
    if training.deepspeed is not None and "RANK" in os.environ:
        import deepspeed

        deepspeed.init_distributed(dist_backend=detect().backend)


def refuse_pattern(training: TrainingArguments) -> None:
    """Refuse an output folder that DeepSpeed could write and never find again: it takes names for patterns.

    Raises:
        ValueError: Names it.
    """
    if training.deepspeed is not None and re.search(r"[*?\[]", str(Path(training.output_dir).absolute())):
        raise ValueError(
            f"--output_dir {Path(training.output_dir).absolute()}: DeepSpeed cannot go on from a folder with "
            "*, ? or [ in its path. Choose another one, or DEEPSPEED=none."
        )
