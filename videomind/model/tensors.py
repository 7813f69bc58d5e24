"""Tensor files with clear errors, and the accounting that refuses whatever does not fit a model."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from videomind.files import atomic_path
from videomind.model.sharding import whole_shape


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
