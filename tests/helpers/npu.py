"""A stand-in for torch-npu that shows eight devices: its names are torch's, it computes nothing."""

import os

import pytest

from helpers.runs import REPO

FAKE_NPU = """
import os, types
import torch

GIB = 2**30


def device_count():
    listed = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    return len(listed.split(",")) if listed else 8


npu_fusion_attention = None

npu = types.ModuleType("torch.npu")
npu.current = 0
npu.is_available = lambda: True
npu.is_initialized = lambda: True
npu.device_count = device_count
npu.current_device = lambda: npu.current
npu.set_device = lambda device: setattr(npu, "current", torch.device(device).index or 0)
npu.is_bf16_supported = lambda: True
npu.max_memory_allocated = lambda: 3 * GIB
npu.mem_get_info = lambda device=None: (60 * GIB, 64 * GIB)
npu.empty_cache = npu.manual_seed = npu.manual_seed_all = lambda *_: None
torch.utils.rename_privateuse1_backend("npu")
torch._register_device_module("npu", npu)
"""


@pytest.fixture
def npu_env(tmp_path):
    """An environment in which `import torch_npu` works and shows eight devices."""
    (tmp_path / "torch_npu.py").write_text(FAKE_NPU)
    unset = ("VIDEOMIND_DEVICE", "DS_ACCELERATOR")
    env = {k: v for k, v in os.environ.items() if "VISIBLE_DEVICES" not in k and k not in unset}
    return env | {"PYTHONPATH": f"{tmp_path}:{REPO}"}
