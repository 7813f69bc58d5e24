"""A stand-in for torch-npu that shows eight devices."""

import os

import pytest

from helpers.runs import REPO

FAKE_NPU = """
import os, sys, types
import torch
def device_count():
    listed = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    return len(listed.split(",")) if listed else 8
torch.npu = types.SimpleNamespace(is_available=lambda: True, device_count=device_count)
"""


@pytest.fixture
def npu_env(tmp_path):
    """An environment in which `import torch_npu` works and shows eight devices."""
    (tmp_path / "torch_npu.py").write_text(FAKE_NPU)
    unset = ("VIDEOMIND_DEVICE", "DS_ACCELERATOR")
    env = {k: v for k, v in os.environ.items() if "VISIBLE_DEVICES" not in k and k not in unset}
    return env | {"PYTHONPATH": f"{tmp_path}:{REPO}"}
