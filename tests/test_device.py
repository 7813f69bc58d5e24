"""Device detection, with a stand-in for torch-npu, and what the launcher makes of it."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from runs import environment, needs_deepspeed

from videomind.cores import usable_cores
from videomind.device import attention, detect, torch_device

REPO = Path(__file__).parent.parent
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
        "DEEPSPEED_INSTALLED": "yes" if find_spec("deepspeed") else "no",
        "CPU_CORES": str(usable_cores()),
    }
    assert shell_facts(npu_env | {"ASCEND_RT_VISIBLE_DEVICES": "2,5"})["DEVICE_COUNT"] == "2"


def fake_python(folder: Path) -> Path:
    """A python that answers `-m videomind.device` for real and prints any other command."""
    script = folder / "python"
    script.write_text(
        f'#!/bin/bash\nif [[ $2 == videomind.device ]]; then exec {sys.executable} "$@"; fi\n'
        'echo "DS=${DS_ACCELERATOR:-}" "$@"\n'
    )
    script.chmod(0o755)
    return script


def launch(env, tmp_path, script="scripts/pretrain/pretrain_grounder_2b.sh", *arguments):
    env = env | {"PYTHON": str(fake_python(tmp_path))}
    return subprocess.run(
        ["bash", str(REPO / script), *arguments], env=env, cwd=tmp_path, capture_output=True, text=True
    )


def test_launch_on_npus_keeps_the_global_batch(npu_env, tmp_path):
    out = launch(npu_env | {"ASCEND_RT_VISIBLE_DEVICES": "0,1"}, tmp_path).stdout
    assert "--nproc_per_node 2" in out
    assert "--per_device_train_batch_size 1 --gradient_accumulation_steps 16" in out
    assert "DS= " in out


def test_launch_on_several_nodes(npu_env, tmp_path):
    nodes = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "1234"}
    out = launch(npu_env | nodes, tmp_path).stdout
    assert "--nnodes 2 --node_rank 1 --nproc_per_node 8 --master_addr node0 --master_port 1234" in out
    assert "--gradient_accumulation_steps 2" in out


def test_launch_arguments_on_the_command_line_win(npu_env, tmp_path):
    out = launch(
        npu_env, tmp_path, "scripts/finetune/finetune_qvhighlights_7b.sh", "--learning_rate", "3e-5"
    ).stdout
    assert out.rindex("--learning_rate 3e-5") > out.index("--learning_rate 1e-4")
    assert "--model_name_or_path model_zoo/VideoMind-7B" in out


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"NPROC_PER_NODE": "3"}, "global batch of 32 .* cannot be shared by 1 node.* x 3 process"),
        (
            {"DEEPSPEED": "zero9"},
            "No DeepSpeed configuration .*zero9.*Allowed: none, a file, or one of zero2 ",
        ),
    ],
)
def test_launch_refuses_what_cannot_be(npu_env, tmp_path, env, message):
    run = launch(npu_env | env, tmp_path)
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert re.search(message, run.stderr)


@pytest.mark.parametrize(
    ("system", "asked", "given"),
    [
        ("Linux", {}, "--deepspeed scripts/deepspeed/zero2.json"),
        ("Darwin", {}, None),
        ("Darwin", {"DEEPSPEED": "zero3"}, "--deepspeed scripts/deepspeed/zero3.json"),
        ("Linux", {"DEEPSPEED": "none"}, None),
    ],
)
def test_deepspeed_is_the_default_on_linux(tmp_path, system, asked, given):
    (tmp_path / "uname").write_text(f"#!/bin/bash\necho {system}\n")
    (tmp_path / "uname").chmod(0o755)
    facts = "DEVICE_KIND=cpu DEVICE_COUNT=0 CPU_CORES=4 DEEPSPEED_INSTALLED="
    env = dict(os.environ) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | asked
    out = launch(env | {"DEVICE_FACTS": facts + "yes"}, tmp_path).stdout
    assert (given in out) if given else ("--nproc_per_node 1" in out and "--deepspeed" not in out)
    missing = launch(env | {"DEVICE_FACTS": facts + "no"}, tmp_path)
    if given:
        assert missing.returncode == 2 and missing.stdout == "" and len(missing.stderr.splitlines()) == 1
        assert "DeepSpeed is not installed here" in missing.stderr
    else:
        assert missing.stdout == out


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_deepspeed_on_a_cpu_needs_a_compiler(tmp_path, kind):
    (tmp_path / "tools").mkdir()
    for name in ("bash", "dirname", "uname"):
        (tmp_path / "tools" / name).symlink_to(shutil.which(name))
    facts = f"DEVICE_KIND={kind} DEVICE_COUNT={int(kind != 'cpu')} CPU_CORES=4 DEEPSPEED_INSTALLED=yes"
    env = {"PATH": str(tmp_path / "tools"), "DEVICE_FACTS": facts}
    for stage in ("zero2", "none"):
        run = launch(env | {"DEEPSPEED": stage}, tmp_path)
        if (kind, stage) == ("cpu", "zero2"):
            assert run.returncode == 2 and len(run.stderr.splitlines()) == 1
            assert "DeepSpeed needs a C++ compiler on a CPU" in run.stderr
        else:
            assert run.returncode == 0 and "--nproc_per_node 1" in run.stdout


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


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [(8, 2, 4), (7, 2, 3), (2, 4, 1), (1, 1, 1), (16, 1, 16)]
)
def test_processes_share_the_cores(tmp_path, cores, processes, threads):
    (tmp_path / "python").write_text('#!/bin/bash\necho "threads=$OMP_NUM_THREADS of $PYTHONPATH"\n')
    (tmp_path / "python").chmod(0o755)
    facts = f"DEVICE_KIND=cpu DEVICE_COUNT=0 CPU_CORES={cores} DEEPSPEED_INSTALLED=yes"
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    env |= {"DEVICE_FACTS": facts, "NPROC_PER_NODE": str(processes), "PYTHON": str(tmp_path / "python")}
    for script in ("scripts/launch.sh", "scripts/evaluation/infer.sh"):
        for chosen, expected in ({}, threads), ({"OMP_NUM_THREADS": "5"}, 5):
            run = subprocess.run(["bash", script], cwd=REPO, env=env | chosen, capture_output=True, text=True)
            assert run.stdout.startswith(f"threads={expected} of {REPO}"), run.stderr


def test_cpu_uses_deepspeeds_cpu_path(tmp_path):
    env = dict(os.environ) | {"VIDEOMIND_DEVICE": "cpu"}
    out = launch(env, tmp_path).stdout
    assert "DS=cpu" in out and "--nproc_per_node 1" in out


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
