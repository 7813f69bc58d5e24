"""What the processes of one training must agree on, however their folders and clocks differ.

The first process decides and tells the others. What each of them must see or hold is compared, as a run whose
processes differ looks normal: the losses fall, and the model is of nobody.
"""

import socket
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from videomind.model.tensors import is_sharded
from videomind.runs.together import from_all, within

PATIENCE_S = 10.0  # for a file that the first process sees already
_WHOLE_NUMBERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_all_see(path: Path) -> None:
    """Refuse to go on where a process cannot see a file that the first one has decided to go on from.

    Raises:
        ValueError: Names the processes and their nodes; on every process.
    """
    is_seen = within(PATIENCE_S, path.is_file)
    blind = [
        f"{rank} on {node}" for rank, (sees, node) in enumerate(from_all((is_seen, _node()))) if not sees
    ]
    if blind:
        raise ValueError(
            f"The run goes on from {path.parent.absolute()}, but process {', '.join(blind)} cannot see it: "
            "--output_dir must be a folder that all nodes share. To start again, choose another one."
        )


def _node() -> str:
    return socket.gethostname()


def check_equal(model: nn.Module, step: int) -> None:
    """Compare over all processes what they are about to train.

    Args:
        model: each process's; of parameters that are sharded each holds another part.
        step: optimizer steps behind it.

    Raises:
        ValueError: Processes are at different steps, or a trainable parameter differs; on every process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    params = {n: p for n, p in model.named_parameters() if p.requires_grad and not is_sharded(p)}
    states = from_all((step, {name: checksum(param) for name, param in params.items()}))
    first_step, first = states[0]
    for rank, (other_step, other) in enumerate(states):
        if other_step != first_step:
            raise ValueError(f"Process {rank} is at step {other_step}, process 0 at step {first_step}")
        if differ := [name for name in first.keys() | other.keys() if first.get(name) != other.get(name)]:
            raise ValueError(
                f"{len(differ)} trainable parameters of process {rank} are not those of process 0 (first: "
                f"{min(differ)}). All must start from the same files."
            )


def checksum(tensor: Tensor) -> int:
    """Add up a tensor's bits, read as whole numbers: equal for equal values, whatever the device."""
    bits = tensor.detach().contiguous().view(_WHOLE_NUMBERS[tensor.element_size()])
    return int(bits.sum(dtype=torch.int64))
