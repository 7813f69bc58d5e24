"""What happens at moments of a training: its start, an epoch's, and after a step when it is asked to stop."""

import signal
import threading
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from videomind.runs.processes import STOP
from videomind.train.agreement import check_equal
from videomind.train.command_line.arguments import TrainingArguments
from videomind.train.sampler import EpochSampler


class SetEpoch(TrainerCallback):
    """Tells the sampler its epoch; the loader does not, when a resumed epoch skips batches."""

    def __init__(self, sampler: EpochSampler):
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class CheckEqual(TrainerCallback):
    """Compares the processes' parameters when all is set up and restored."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        check_equal(model, state.global_step)


class Stopped(Exception):
    """A run was asked to stop before its last step; a rerun of the same command goes on from there."""


class StopWhenAsked(TrainerCallback):
    """Saves and stops after the step in which SIGUSR1 came, as of a scheduler before a time limit.

    `videomind launch` passes it on to its processes; if one of them has it, all stop.

    Attributes:
        has_stopped: whether this was so; the same on every process.
    """

    def __init__(self) -> None:
        self.has_stopped = False
        self._is_asked = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(STOP, self._ask)
            signal.siginterrupt(STOP, False)  # reads that it meets go on

    def _ask(self, *_: Any) -> None:
        self._is_asked = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        is_asked = self._is_asked
        if dist.is_initialized():
            asked = torch.tensor(int(is_asked), device=args.device)
            dist.all_reduce(asked, op=dist.ReduceOp.MAX)
            is_asked = bool(asked.item())
        if is_asked and state.global_step < state.max_steps:
            self.has_stopped = control.should_save = control.should_training_stop = True
