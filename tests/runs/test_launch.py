"""How a run is placed on devices and nodes, and how a global batch is cut.

Covers `runs/torchrun.py` and `runs/processes.py`.
"""

import json
import os
import socket
import subprocess
import sys

import pytest
from helpers.runs import REPO, environment

from videomind.device import Device
from videomind.runs.launch import (
    COMMANDS,
    PORTS,
    Placement,
    deepspeed_file,
    launch,
    main,
    placement,
    prepare_environment,
    training_arguments,
)

SEVEN_B = "scripts/finetune/finetune_qvhighlights_7b.sh"
CPU = Device(kind="cpu", backend="gloo", visible_variable="", count=0)
EIGHT = Device(kind="cuda", backend="nccl", visible_variable="CUDA_VISIBLE_DEVICES", count=8)


def place(**changes) -> Placement:
    return Placement(**{"num_nodes": 1, "node_rank": 0, "per_node": 1, "address": "x", "port": 1, **changes})


def test_one_process_per_visible_device():
    assert placement({}, CPU, 29500) == place(address="127.0.0.1", port=29500)
    assert placement({}, EIGHT, 29500).world_size == 8
    nodes = {
        "NNODES": "4",
        "NODE_RANK": "3",
        "MASTER_ADDR": "first",
        "MASTER_PORT": "5",
        "NPROC_PER_NODE": "2",
    }
    assert placement(nodes, EIGHT, 1) == place(num_nodes=4, node_rank=3, per_node=2, address="first", port=5)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"NNODES": "0"}, "NNODES is '0'"),
        ({"NNODES": "two"}, "NNODES is 'two'"),
        ({"NPROC_PER_NODE": "-1"}, "NPROC_PER_NODE is '-1'"),
        ({"NODE_RANK": "1"}, "NODE_RANK is 1. Allowed with NNODES=1: 0 to 0"),
        ({"NNODES": "2"}, "name the first node with MASTER_ADDR"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT is 'x'"),
    ],
)
def test_variables_that_cannot_be_used(environ, message):
    with pytest.raises(ValueError, match=message):
        placement(environ, EIGHT, 29500)


@pytest.mark.parametrize(
    ("environ", "section", "nodes", "expected"),
    [
        ({}, {}, 1, ["1", "32", "zero2"]),
        ({"GLOBAL_BATCH": "64", "BATCH_PER_DEVICE": "2"}, {}, 4, ["2", "8", "zero2"]),
        ({}, {"batch_per_device": 8, "deepspeed": "none"}, 1, ["8", "4", None]),
        ({"BATCH_PER_DEVICE": "4", "DEEPSPEED": "zero3"}, {"batch_per_device": 8}, 2, ["4", "4", "zero3"]),
    ],
)
def test_a_global_batch_is_shared(environ, section, nodes, expected):
    argv = training_arguments(environ, section, place(num_nodes=nodes), "cuda")
    assert [argv[1], argv[3]] == expected[:2]
    assert argv[4:] == (["--deepspeed", str(deepspeed_file(expected[2]))] if expected[2] else [])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"per_device_train_batch_size": "2"}, ["2", "4"]),  # the global batch of 32 stays
        ({"gradient_accumulation_steps": "3"}, ["1", "3"]),
        ({"per_device_train_batch_size": "5", "gradient_accumulation_steps": "3"}, ["5", "3"]),
        ({"learning_rate": "1"}, ["1", "8"]),
    ],
)
def test_a_batch_size_of_the_command_line_keeps_the_global_batch(given, expected):
    argv = training_arguments({}, {}, place(per_node=4), "cuda", given)
    assert [argv[1], argv[3]] == expected


def test_a_batch_size_of_the_command_line_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"A global batch of 32 .*4 process\(es\) x 3 sample"):
        training_arguments({}, {}, place(per_node=4), "cuda", {"per_device_train_batch_size": "3"})
    with pytest.raises(ValueError, match="per_device_train_batch_size is 'two'"):
        training_arguments({}, {}, place(per_node=4), "cuda", {"per_device_train_batch_size": "two"})


def test_a_batch_that_cannot_be_shared_says_what_must_divide_it():
    with pytest.raises(
        ValueError, match=r"A global batch of 32 .*2 node\(s\) x 3 process.*: 6 must divide it"
    ):
        training_arguments({}, {}, place(num_nodes=2, per_node=3), "cuda")


def test_an_unknown_stage_lists_the_known_ones(tmp_path):
    own = tmp_path / "own.json"
    own.write_text(json.dumps({}))
    assert deepspeed_file(str(own)) == own
    with pytest.raises(ValueError, match="'zero4'.*none, a JSON file.*zero2_offload"):
        deepspeed_file("zero4")


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(ValueError, match="'trian'.*Did you mean 'train'"):
        launch("trian", [])
    assert main(["trian"]) == 2 and "trian" in capsys.readouterr().err
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


@pytest.mark.parametrize(
    ("platform", "asked", "stage"),
    [("linux", {}, "zero2"), ("darwin", {}, None), ("darwin", {"DEEPSPEED": "zero3"}, "zero3")]
    + [("linux", {"DEEPSPEED": "none"}, None)],
)
def test_deepspeed_is_the_default_on_linux(platform, asked, stage, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    argv = training_arguments(asked, {}, place(), "cuda")
    assert argv[4:] == (["--deepspeed", str(deepspeed_file(stage))] if stage else [])


@pytest.mark.parametrize(
    ("kind", "has_deepspeed", "compilers", "message"),
    [
        ("cuda", False, ("g++",), "DeepSpeed is not installed here.*DEEPSPEED=none trains without"),
        ("cpu", True, (), "needs a C\\+\\+ compiler on a CPU.*DEEPSPEED=none trains without"),
        ("cpu", True, ("g++",), None),
        ("cpu", True, ("c++",), None),
        ("cuda", True, (), None),
    ],
)
def test_what_deepspeed_lacks_is_said(kind, has_deepspeed, compilers, message, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if has_deepspeed else None)
    monkeypatch.setattr("shutil.which", lambda name: name if name in compilers else None)
    if message is None:
        assert "--deepspeed" in training_arguments({"DEEPSPEED": "zero2"}, {}, place(), kind)
        return
    with pytest.raises(ValueError, match=message):
        training_arguments({"DEEPSPEED": "zero2"}, {}, place(), kind)
    assert "--deepspeed" not in training_arguments({"DEEPSPEED": "none"}, {}, place(), kind)


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [(8, 2, 4), (7, 2, 3), (2, 4, 1), (1, 1, 1), (16, 1, 16)]
)
def test_processes_share_the_cores(cores, processes, threads, monkeypatch):
    monkeypatch.setattr("videomind.runs.launch.usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    prepare_environment(EIGHT, processes)
    assert os.environ["OMP_NUM_THREADS"] == str(threads) and "DS_ACCELERATOR" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("DS_ACCELERATOR", "")
    prepare_environment(CPU, processes)
    assert os.environ["OMP_NUM_THREADS"] == "5" and os.environ["DS_ACCELERATOR"] == "cpu"


def test_a_script_on_npus_keeps_the_global_batch_and_its_arguments_win(npu_env):
    nodes = {
        "NNODES": "2",
        "NODE_RANK": "1",
        "MASTER_ADDR": "node0",
        "MASTER_PORT": "1234",
        "DEEPSPEED": "none",
    }
    run = subprocess.run(
        ["bash", str(REPO / SEVEN_B), "--show", "--learning_rate", "3e-5"],
        env=npu_env | nodes | {"PYTHON": sys.executable}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    place = "--nnodes 2 --node_rank 1 --nproc_per_node 8 --master_addr node0 --master_port 1234 "
    assert run.stdout.startswith(f"torchrun {place}")
    assert "--per_device_train_batch_size 1 --gradient_accumulation_steps 2 " in run.stdout
    assert run.stdout.endswith("--size 7b --learning_rate 3e-5\n")


@pytest.mark.slow
def test_two_processes_of_inference_share_the_work(tmp_path):
    """Also that a wrong argument is said by the command itself."""
    run = subprocess.run(
        [sys.executable, "-m", "videomind.cli", "launch", "infer", "--dataset", "charades"],
        env=environment(NPROC_PER_NODE="2", MASTER_PORT="28731"), cwd=REPO, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2 and "--pred_path" in run.stderr


def test_a_taken_port_is_not_met_at(monkeypatch, caplog):
    """Where one node runs and nobody named a port; else the error says which one is taken."""
    calls = []
    monkeypatch.setattr("videomind.runs.torchrun.main", lambda argv: calls.append(argv) or 0)
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    monkeypatch.setenv("DEEPSPEED", "none")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    caplog.set_level("INFO")
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setitem(PORTS, "infer", taken)
        assert launch("infer", []) == 0
        monkeypatch.setenv("MASTER_PORT", str(taken))
        assert launch("infer", []) == 0
    monkeypatch.delenv("MASTER_PORT")
    assert launch("infer", []) == 0
    ports = [int(argv[argv.index("--master_port") + 1]) for argv in calls]
    assert ports[0] != taken and ports[1:] == [taken, taken]
    assert f"Port {taken} is taken" in caplog.text
