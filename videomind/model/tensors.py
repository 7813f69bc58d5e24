"""A model's tensors: files with clear errors, what does not fit is refused, ZeRO-3's parts are made whole.

Under DeepSpeed ZeRO-3 each process holds a part of every parameter.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from videomind.files import atomic_path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        ValueError: It cannot be read; names the file.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None


def compare(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Name the tensors that are missing, unexpected, or mismatched in shape; `expected` may be sharded."""
    mismatched = [
        f"{k} {tuple(actual[k].shape)} instead of {tuple(whole_shape(expected[k]))}"
        for k in expected.keys() & actual.keys()
        if whole_shape(expected[k]) != actual[k].shape
    ]
    return {
        "missing": sorted(expected.keys() - actual.keys()),
        "unexpected": sorted(actual.keys() - expected.keys()),
        "mismatched": sorted(mismatched),
    }


def changed(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors whose saved values are not those of the model."""
    return [
        name
        for name, value in saved.items()
        if not torch.equal(own[name].cpu(), value.to(own[name].dtype).cpu())
    ]


def refuse(problems: Mapping[str, list[str]], where: Path) -> None:
    """Raise when anything is missing, unexpected or of another shape: silence would mean random weights."""
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for kind, names in problems.items()
        if names
    ]
    if parts:
        raise ValueError(f"The tensors in {where} do not fit the model: {'; '.join(parts)}")


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file atomically."""
    ready: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        # The format wants storages of their own; what is one already is not held twice.
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        ready[name] = tensor
    with atomic_path(path) as temporary:
        save_file(ready, temporary, metadata={"format": "pt"})


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
