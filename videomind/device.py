"""CUDA, Ascend NPU or CPU: the one place that knows what runs here and what follows from it.

`python -m videomind.device` prints the same facts as shell variables, for scripts of your own.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    import torch
    from torch import nn

log = logging.getLogger(__name__)

FLASH_CAPABILITY = (8, 0)  # Ampere, the first that flash-attn 2 has kernels for
HOST_BACKEND = "gloo"  # communication between processes that needs no accelerator
# What a driver puts into /dev: NVIDIA's (also on Tegra and under WSL), AMD's, Ascend's.
DRIVER_FILES = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd", "davinci*")


@dataclass(frozen=True, kw_only=True)
class Device:
    """What this process computes on.

    Attributes:
        kind: `cuda`, `npu` or `cpu`.
        backend: of collective communication.
        visible_variable: the environment variable that lists devices; empty on a CPU.
        count: how many are visible.
    """

    kind: str
    backend: str
    visible_variable: str
    count: int

    @property
    def module(self) -> ModuleType | None:
        """torch.cuda or torch.npu; None on a CPU."""
        import torch

        return getattr(torch, self.kind) if self.kind != "cpu" else None


def detect() -> Device:
    """Find what this machine has: an NPU if torch-npu is installed and sees one, else CUDA, else the CPU.

    `VIDEOMIND_DEVICE=cuda|npu|cpu` overrides it.

    Raises:
        ValueError: the variable has another value, or that device is not there.
    """
    name = os.environ.get("VIDEOMIND_DEVICE", "")
    if name not in ("", "cuda", "npu", "cpu"):
        raise ValueError(f"VIDEOMIND_DEVICE is {name!r}. Allowed: cuda, npu, cpu.")
    counts = {"npu": _npu_count(), "cuda": _cuda_count()} if name != "cpu" and _may_have_any() else {}
    if name in ("npu", "cuda") and not counts.get(name):
        raise ValueError(f"VIDEOMIND_DEVICE is {name}, but no such device is visible here")
    kind = name or next((kind for kind, count in counts.items() if count), "cpu")
    if kind == "npu":
        return Device(
            kind="npu", backend="hccl", visible_variable="ASCEND_RT_VISIBLE_DEVICES", count=counts["npu"]
        )
    if kind == "cuda":
        return Device(
            kind="cuda", backend="nccl", visible_variable="CUDA_VISIBLE_DEVICES", count=counts["cuda"]
        )
    return Device(kind="cpu", backend=HOST_BACKEND, visible_variable="", count=0)


def _may_have_any() -> bool:
    """Tell whether torch is worth asking; without a driver it need not be imported, which takes seconds."""
    if "torch" in sys.modules or importlib.util.find_spec("torch_npu") is not None:
        return True
    if sys.platform == "darwin":  # neither CUDA nor an NPU
        return False
    return sys.platform != "linux" or any(any(Path("/dev").glob(name)) for name in DRIVER_FILES)


def _cuda_count() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _npu_count() -> int:
    if importlib.util.find_spec("torch_npu") is None:
        return 0
    import torch
    import torch_npu  # noqa: F401 - registers torch.npu

    return torch.npu.device_count() if torch.npu.is_available() else 0


def prepare_process(device: Device) -> None:
    """Set what libraries look at when they are imported."""
    if device.kind == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Of a CUDA toolkit (CUDA_HOME) without a GPU; what DeepSpeed compiles here is for the CPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def torch_device(name: str = "auto") -> torch.device:
    """Choose the device of this process.

    Args:
        name: `auto`, `cpu`, or e.g. `cuda:1`; without a number `LOCAL_RANK` chooses it.

    Raises:
        ValueError: a name that is none, or a device that is not there.
    """
    import torch

    device = detect()
    try:
        chosen = torch.device(device.kind if name == "auto" else name)
    except RuntimeError:
        raise ValueError(f"Unknown device {name!r}. Allowed: auto, cpu, cuda:0, npu:0, ...") from None
    if chosen.type == "cpu":
        return chosen
    count = device.count if chosen.type == device.kind else 0
    index = int(os.environ.get("LOCAL_RANK", 0)) % max(count, 1) if chosen.index is None else chosen.index
    if index >= count:
        raise ValueError(f"No device {name!r}: {count} of its kind are visible here")
    return torch.device(chosen.type, index)


def default_dtype(kind: str) -> torch.dtype:
    """Choose bfloat16 on accelerators that have it, else float16; float32 on a CPU.

    float16, in which scores were published, cannot hold what some layers compute (D310).
    """
    import torch

    if kind == "cpu":
        return torch.float32
    return torch.bfloat16 if _has_bfloat16(kind) else torch.float16


def _has_bfloat16(kind: str) -> bool:
    """Tell whether this machine's devices compute in bfloat16, not in software."""
    import torch

    module = getattr(torch, kind, None)
    if module is None or not module.is_available() or not hasattr(module, "is_bf16_supported"):
        return False
    return (
        module.is_bf16_supported(including_emulation=False) if kind == "cuda" else module.is_bf16_supported()
    )


def optimizer(kind: str) -> str:
    """Choose the optimizer where none is asked for; the fused one of transformers may lack an NPU's kernels.

    Args:
        kind: of the device.
    """
    return "adamw_torch" if kind == "npu" else "adamw_torch_fused"


def attention(name: str, kind: str, dtype: torch.dtype) -> str:
    """Choose the attention implementation.

    Args:
        name: `auto` or one of transformers', which is then returned as it is.
        kind: of the device.
        dtype: of the run.

    Returns:
        flash_attention_2 where it can run (CUDA with flash-attn, or NPU; half precision), else sdpa.
    """
    import torch

    if name == "eager" and dtype == torch.float16:
        log.warning("Eager attention in float16 overflows with published weights: take bfloat16, or sdpa")
    if name != "auto":
        return name
    if dtype not in (torch.float16, torch.bfloat16):
        return "sdpa"
    return "flash_attention_2" if kind == "npu" or (kind == "cuda" and _has_flash()) else "sdpa"


def _has_flash() -> bool:
    """Tell whether flash-attn is installed, works, and has kernels for this device."""
    if importlib.util.find_spec("flash_attn") is None:
        return False
    import torch

    if (capability := torch.cuda.get_device_capability()) < FLASH_CAPABILITY:
        log.info("flash-attn needs compute capability 8.0, this device has %d.%d: sdpa instead", *capability)
        return False
    try:
        importlib.import_module("flash_attn")
    except (ImportError, OSError) as error:  # built for another torch, or a library is missing
        log.warning("flash-attn is installed, but cannot be loaded (%s): sdpa instead", error)
        return False
    return True


def spread(model: nn.Module) -> nn.Module:
    """Put a model on all visible devices, layer after layer, for one that is too large for a single one."""
    if detect().count < 2:
        return model.to(torch_device())
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole = [*getattr(model, "_no_split_modules", ()), "GroundingHead"]
    memory = get_balanced_memory(model, no_split_module_classes=whole)
    layers = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=whole)
    if slow := {name: str(where) for name, where in layers.items() if str(where) in ("cpu", "disk")}:
        log.warning("The devices' memory is too small: these parts lie elsewhere and are slow: %s", slow)
    return dispatch_model(model, layers)


def uploaded(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Send a tensor to a device; to an accelerator from pinned memory, so that nobody waits for the copy."""
    if tensor.device.type != "cpu" or device.type == "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def let_adapters_be_fast(dtype: torch.dtype, kind: str) -> None:
    """Let float32 adapters on half-precision weights use TF32, which holds all digits of their input.

    Args:
        dtype: of the weights; beside float32 weights nothing changes.
        kind: of the device.
    """
    import torch

    if kind == "cuda":
        torch.set_float32_matmul_precision("highest" if dtype == torch.float32 else "high")


def free_cached_memory() -> None:
    """Give back what the allocator keeps of the device's memory, pieces that fit nothing among it."""
    module = detect().module
    if module is not None:
        module.empty_cache()


def peak_memory_gib() -> float:
    """Measure the largest memory this process has allocated on its accelerator, GiB; 0 on a CPU."""
    module = detect().module
    return module.max_memory_allocated() / 2**30 if module is not None else 0.0


def shell_facts() -> str:
    """Write what a script may want to know of this machine, as shell assignments."""
    device = detect()
    return "\n".join(
        (
            f"DEVICE_KIND={device.kind}",
            f"DEVICE_BACKEND={device.backend}",
            f"DEVICE_COUNT={device.count}",
            f"DEVICE_VARIABLE={device.visible_variable}",
        )
    )


if __name__ == "__main__":
    sys.stdout.write(shell_facts() + "\n")
