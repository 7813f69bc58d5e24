"""Device detection, with a stand-in for torch-npu, and what the launcher makes of it."""

import subprocess
import sys

import pytest
import torch
from helpers.runs import REPO, environment, needs_deepspeed

from videomind.device import attention, detect, torch_device


def shell_facts(env) -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, "-m", "videomind.device"],
        env=env,
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=") for line in run.stdout.split())


def test_npu(npu_env):
    assert shell_facts(npu_env) == {
        "DEVICE_KIND": "npu",
        "DEVICE_BACKEND": "hccl",
        "DEVICE_COUNT": "8",
        "DEVICE_VARIABLE": "ASCEND_RT_VISIBLE_DEVICES",
    }
    assert shell_facts(npu_env | {"ASCEND_RT_VISIBLE_DEVICES": "2,5"})["DEVICE_COUNT"] == "2"


COMPILING = """
from videomind.train.arguments import device_arguments
device_arguments([])
import deepspeed.comm.torch  # whose compiling imports the builder of extensions
import torch.utils.cpp_extension
print(torch.utils.cpp_extension.CUDA_HOME)
"""


@needs_deepspeed
def test_a_cuda_toolkit_without_a_gpu_is_no_matter_on_a_cpu(tmp_path):
    env = environment(CUDA_HOME=str(tmp_path))
    run = subprocess.run([sys.executable, "-c", COMPILING], env=env, cwd=REPO, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    if torch.version.cuda:
        assert run.stdout.splitlines()[-1] == str(tmp_path)
    assert "CUDA_HOME" not in run.stderr


def test_override_is_checked(monkeypatch):
    monkeypatch.setenv("VIDEOMIND_DEVICE", "tpu")
    with pytest.raises(ValueError, match="'tpu'. Allowed: cuda, npu, cpu"):
        detect()


def test_attention():
    assert attention("eager", "cuda", torch.float16) == "eager"
    assert attention("auto", "cpu", torch.float32) == "sdpa"
    assert attention("auto", "npu", torch.bfloat16) == "flash_attention_2"
    assert attention("auto", "npu", torch.float32) == "sdpa"
    assert torch_device("cpu") == torch.device("cpu")


def test_devices_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("VIDEOMIND_DEVICE", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert torch_device() == torch_device("cuda") == torch_device("cuda:1") == torch.device("cuda:1")
    assert torch_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match="No device 'cuda:2': 2 of its kind are visible"):
        torch_device("cuda:2")
    with pytest.raises(ValueError, match="Unknown device 'toaster'. Allowed: auto, cpu, cuda:0"):
        torch_device("toaster")
