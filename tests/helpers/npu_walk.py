"""Walks what this package does on an NPU, and records which of its lines ran: `python -m helpers.npu_walk`.

Run where `import torch_npu` finds a stand-in. Prints facts and lines as JSON.
"""

import contextlib
import importlib
import io
import json
import os
import sys
from collections import defaultdict
from types import FrameType

import torch
from torch import nn

from videomind import device, faults
from videomind.runs import launch
from videomind.train.command_line.arguments import TrainingArguments

PACKAGE = os.path.dirname(device.__file__)
lines: dict[str, set[int]] = defaultdict(set)


def trace(frame: FrameType, event: str, arg: object):
    path = frame.f_code.co_filename
    if not path.startswith(PACKAGE):
        return None
    if event == "line":
        lines[path].add(frame.f_lineno)
    return trace


def error(call, *args) -> str:
    try:
        return str(call(*args))
    except ValueError as problem:
        return str(problem)


def shown(*argv: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        assert launch.main([*argv, "--show"]) == 0
    return screen.getvalue()


def walk() -> dict[str, object]:
    """Ask for everything that depends on the device."""
    found = device.detect()
    facts: dict[str, object] = {
        "facts": device.shell_facts().split(),
        "attention": [device.attention("auto", "npu", t) for t in (torch.bfloat16, torch.float32)],
        "dtype": str(device.default_dtype("npu")),
        "peak": device.peak_memory_gib(),
        "places": [error(device.torch_device, name) for name in ("auto", "npu", "npu:7", "npu:8", "cuda:0")],
        "processes": launch.placement({}, found, 1).per_node,
        "train": shown("train", "--output_dir", "x"),
        "infer": shown("infer", "--pred_path", "x"),
    }
    os.environ["LOCAL_RANK"] = "3"
    facts["of rank 3"] = str(device.torch_device())
    del os.environ["LOCAL_RANK"]
    made = TrainingArguments(output_dir="x", bf16=True)
    facts["training"] = [made.optim, str(made.device), made.n_gpu]
    device.prepare_process(found)
    launch.prepare_environment(found, 8)
    facts["DeepSpeed"] = os.environ.get("DS_ACCELERATOR")
    device.spread(nn.Linear(2, 2))  # too large for a stand-in, which has no memory: it stays on the CPU
    importlib.reload(faults)  # its constants are of NPUs too
    facts["out of memory"] = [
        faults.is_out_of_memory(RuntimeError(text)) for text in (f"{faults.NPU_OUT_OF_MEMORY}. Tried", "else")
    ]
    for name in ("npu", "cuda", "cpu", "tpu"):
        os.environ["VIDEOMIND_DEVICE"] = name
        facts[f"asked for {name}"] = error(lambda: device.detect().kind)
    return facts


if __name__ == "__main__":
    sys.settrace(trace)
    facts = walk()
    sys.settrace(None)
    print(json.dumps({"facts": facts, "lines": {path: sorted(ran) for path, ran in lines.items()}}))
