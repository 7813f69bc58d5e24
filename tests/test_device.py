"""Device detection, with a stand-in for torch-npu, and what the launcher makes of it."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from helpers.runs import REPO, environment, needs_deepspeed

from videomind.device import attention, default_dtype, detect, torch_device


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


ASKING = """
import sys
from videomind import device
device.DRIVER_FILES = {files}
without = device.detect()
print("torch" in sys.modules)
import torch
assert device.detect() == without
"""


@pytest.mark.parametrize(("files", "asks"), [((), False), (("null",), True)])
def test_torch_is_asked_where_there_is_a_driver(files, asks):
    if sys.platform != "linux" or find_spec("torch_npu") or (torch.cuda.is_available() and not asks):
        pytest.skip("torch is asked by other rules, or has a device")
    env = {name: value for name, value in environment().items() if name != "VIDEOMIND_DEVICE"}
    command = [sys.executable, "-c", ASKING.format(files=files)]
    run = subprocess.run(command, env=env, cwd=REPO, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(asks)]


COMPILING = """
from videomind.train.command_line.arguments import device_arguments
device_arguments([])
import deepspeed.comm.torch  # whose compiling imports the builder of extensions
import torch.utils.cpp_extension
print(torch.utils.cpp_extension.CUDA_HOME)
"""


@pytest.mark.slow
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


class Pretended:
    """What torch says of a device."""

    def __init__(self, *, capability: tuple[int, int] = (9, 0), has_bfloat16: bool = True):
        self.capability, self.has_bfloat16 = capability, has_bfloat16

    def install(self, monkeypatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: self.capability)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: self.has_bfloat16)


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_bfloat16_is_taken_where_the_device_has_it(monkeypatch, has_bfloat16, dtype):
    Pretended(has_bfloat16=has_bfloat16).install(monkeypatch)
    assert default_dtype("cuda") == dtype and default_dtype("cpu") == torch.float32


@pytest.mark.parametrize(
    ("capability", "module", "chosen"),
    [
        ((9, 0), "", "flash_attention_2"),
        ((8, 0), "", "flash_attention_2"),
        ((7, 5), "", "sdpa"),
        ((7, 0), "", "sdpa"),
        ((9, 0), "raise ImportError('undefined symbol')", "sdpa"),
        ((9, 0), "raise OSError('libcudart.so')", "sdpa"),
        ((9, 0), None, "sdpa"),
    ],
)
def test_flash_attention_is_taken_where_it_runs(monkeypatch, tmp_path, capability, module, chosen):
    Pretended(capability=capability).install(monkeypatch)
    if module is not None:
        (tmp_path / "flash_attn.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    try:
        assert attention("auto", "cuda", torch.bfloat16) == chosen
        assert attention("auto", "cuda", torch.float32) == "sdpa"
    finally:
        sys.modules.pop("flash_attn", None)  # not by monkeypatch, which would put it back


def test_eager_attention_in_float16_is_warned_of(caplog):
    attention("eager", "cuda", torch.float16)
    assert "overflows" in caplog.text
