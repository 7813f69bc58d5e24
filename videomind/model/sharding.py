"""Whole parameters under DeepSpeed ZeRO-3, where each process holds a part of every one."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled


@contextmanager
def gathered(params: Iterable[nn.Parameter], *, modify: bool = False) -> Iterator[None]:
    """Make sharded parameters whole within the block; does nothing without ZeRO-3.

    Args:
        params: that the block needs.
        modify: whether the block writes them; every process must write the same values.
    """
    if not is_deepspeed_zero3_enabled():
        context = nullcontext()
    else:
        import deepspeed

        sharded = [p for p in params if hasattr(p, "ds_id")]
        context = deepspeed.zero.GatheredParameters(sharded, modifier_rank=0 if modify else None)
    with context:
        yield


def is_sharded(param: Tensor) -> bool:
    """Tell whether ZeRO-3 has taken a parameter over, perhaps with an empty tensor in its place."""
    return hasattr(param, "ds_id")


def whole_shape(tensor: Tensor) -> torch.Size:
    """Tell the shape of a tensor, of a sharded parameter that of the whole."""
    return torch.Size(getattr(tensor, "ds_shape", tensor.shape))


def copy_to_cpu(
    tensors: Mapping[str, Tensor], dtype: torch.dtype | None, *, should_keep: bool = True
) -> dict[str, Tensor]:
    """Copy to the CPU, one tensor at a time, so that a sharded model never has to fit on one device.

    Args:
        tensors: by name; perhaps sharded parameters.
        dtype: of the copies that hold floating-point numbers; None leaves it.
        should_keep: off where the copies are not wanted; every process takes part in gathering.
    """
    state = {}
    for name, tensor in tensors.items():
        with gathered([tensor]):
            if should_keep:
                kind = dtype if tensor.is_floating_point() else None
                state[name] = tensor.detach().to(device="cpu", dtype=kind, copy=True)
    return state


def unify_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """Give parameters that were added to a sharded model its type, as ZeRO-3 needs one for all.

    The other stages cast a model themselves; ZeRO-3 leaves that out once a parameter was sharded while it
    was loaded. The optimizer's own copies are float32 all the same.
    """
    if is_deepspeed_zero3_enabled():
        for param in model.parameters():
            if not is_sharded(param):
                param.data = param.data.to(dtype)
