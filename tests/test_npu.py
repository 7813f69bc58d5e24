"""All that is said of NPUs runs, with a stand-in for torch-npu, and gives what one needs.

Whether the kernels compute the same is only seen on one.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.runs import REPO

WORD = re.compile(r"(?:^|_)npu(?:_|$)|^hccl$|^ASCEND_RT_VISIBLE_DEVICES$", re.IGNORECASE)
LATER = ("train", "infer")  # what a launcher shows


@pytest.fixture
def walked(npu_env) -> dict:
    env = npu_env | {"PYTHONPATH": f"{npu_env['PYTHONPATH']}:{REPO / 'tests'}", "DEEPSPEED": "none"}
    command = [sys.executable, "-m", "helpers.npu_walk"]
    run = subprocess.run(command, env=env, cwd=REPO, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def lines_on_npus(path: Path) -> set[int]:
    """The lines of a file whose names or words, not texts, are of NPUs."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        words = [getattr(node, name, None) for name in ("id", "attr", "name", "value")]
        if any(isinstance(word, str) and WORD.search(word) for word in words):
            found.add(node.body[0].lineno if isinstance(node, ast.FunctionDef) else node.lineno)
    return found


@pytest.mark.slow
def test_every_line_on_npus_runs(walked):
    expected = {str(path): lines_on_npus(path) for path in (REPO / "videomind").rglob("*.py")}
    expected = {path: lines for path, lines in expected.items() if lines}
    assert f"{REPO / 'videomind/device.py'}" in expected
    missed = {path: sorted(lines - set(walked["lines"].get(path, ()))) for path, lines in expected.items()}
    assert not any(missed.values()), missed
    facts = {name: value for name, value in walked["facts"].items() if name not in LATER}
    assert facts == {
        "facts": ["DEVICE_KIND=npu", "DEVICE_BACKEND=hccl", "DEVICE_COUNT=8",
                  "DEVICE_VARIABLE=ASCEND_RT_VISIBLE_DEVICES"],
        "attention": ["flash_attention_2", "sdpa"],
        "dtype": "torch.bfloat16",
        "peak": 3.0,
        "places": ["npu:0", "npu:0", "npu:7", "No device 'npu:8': 8 of its kind are visible here",
                   "No device 'cuda:0': 0 of its kind are visible here"],
        "processes": 8,
        "of rank 3": "npu:3",
        "training": ["adamw_torch", "npu:0", 1],  # transformers knows no DataParallel on NPUs
        "DeepSpeed": None,
        "out of memory": [True, False],
        "asked for npu": "npu",
        "asked for cuda": "VIDEOMIND_DEVICE is cuda, but no such device is visible here",
        "asked for cpu": "cpu",
        "asked for tpu": "VIDEOMIND_DEVICE is 'tpu'. Allowed: cuda, npu, cpu.",
    }  # fmt: skip
    for name in LATER:
        assert "--nproc_per_node 8 " in walked["facts"][name]
    assert "--gradient_accumulation_steps 4 " in walked["facts"]["train"]
