"""A training of a model of real shape: a base with random weights is made, trained for two steps, and asked.

    python benchmarks/real_shape.py [--size 2b|7b|small] [--processes 1] [--folder work_dirs/real_shape]

The 2B is meant for a CPU with 24 GB of memory. Each step is a process of its own, as a user starts it. Shown
are its time and its peak resident memory, that of the largest process where there are several.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from videomind.synthetic.annotations import make_data

REPO = Path(__file__).parents[1]
STEPS = 2
# Fields of the published config.json files; `small` is for trying the benchmark out.
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 512, "vocab_size": 8192, "tie_word_embeddings": True,
        "vision": {"depth": 4, "embed_dim": 128, "num_heads": 4}, "mrope_section": [4, 6, 6],
    },
    "2b": {
        "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
        "intermediate_size": 8960, "vocab_size": 151936, "tie_word_embeddings": True,
        "vision": {"depth": 32, "embed_dim": 1280, "num_heads": 16}, "mrope_section": [16, 24, 24],
    },
    "7b": {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
        "vision": {"depth": 32, "embed_dim": 1280, "num_heads": 16}, "mrope_section": [16, 24, 24],
    },
}  # fmt: skip


def make_base(folder: Path, size: str) -> None:
    """Write a base of a size with random weights in bfloat16; one that is there stays."""
    if (folder / "config.json").is_file():
        return
    # Not at the top: the process that only starts others needs none of it.
    import torch

    from videomind.backbones.registry import load_processor
    from videomind.model.role_model import role_class
    from videomind.model.saving import save_full
    from videomind.synthetic.tiny_model import make_tiny_base

    tiny = folder.with_name("tokenizer")
    make_tiny_base(tiny)
    config = json.loads((tiny / "config.json").read_text())
    shape = dict(SIZES[size])
    vision, section = shape.pop("vision"), shape.pop("mrope_section")
    config |= shape | {"max_window_layers": shape["num_hidden_layers"], "torch_dtype": "bfloat16"}
    config["rope_scaling"]["mrope_section"] = section
    config["vision_config"] |= vision | {"hidden_size": shape["hidden_size"]}
    template = folder.with_name("template")
    template.mkdir(parents=True, exist_ok=True)
    (template / "config.json").write_text(json.dumps(config))
    processor = load_processor(tiny)
    backbone = processor.backbone
    loaded = backbone.load_config(template)
    loaded.dtype = torch.bfloat16
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = role_class(backbone)(loaded)
    save_full(model, folder, processor)


@dataclass(frozen=True)
class Step:
    """A command that is measured.

    Attributes:
        name: in the table.
        command: and its arguments.
        env: variables of its own.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)

    def measure(self) -> list:
        """Run it, its output on the error stream. Returns: name, seconds, GiB of its largest process."""
        start = time.perf_counter()
        env = {**os.environ, "PYTHONPATH": str(REPO), **self.env}
        process = subprocess.Popen(self.command, env=env, stdout=sys.stderr)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, self.command)
        return [self.name, time.perf_counter() - start, usage.ru_maxrss / 2**20]  # KiB on Linux


def steps(folder: Path, size: str, processes: int) -> list[Step]:
    """List what is measured."""
    base, data, out = folder / size / "base", folder / "data", folder / size / f"grounder_{processes}"
    train = [
        *("--role", "grounder", "--model_name_or_path", str(base), "--output_dir", str(out)),
        *("--datasets", "charades_sta", "--data_root", str(data), "--max_steps", str(STEPS)),
        *("--save_steps", str(STEPS), "--logging_steps", "1", "--bf16", "True", "--disable_tqdm", "True"),
        *("--gradient_checkpointing", "True", "--max_frames", "8", "--max_tokens_per_frame", "36"),
    ]
    video = next((data / "charades_sta/videos_3fps_480_noaudio").glob("*.mp4"))
    ask = [
        *("--video", str(video), "--query", "a red square moves", "--model_gnd_path", str(out)),
        *("--pred_path", str(out / "asked"), "--dtype", "bfloat16", "--max_frames", "8"),
        *("--max_tokens_per_frame", "36", "--max_new_tokens", "8"),
    ]
    this = (sys.executable, "-m", "videomind.cli")
    launch = {"NPROC_PER_NODE": str(processes), "GLOBAL_BATCH": str(processes), "DEEPSPEED": "none"}
    own = (sys.executable, __file__, "--size", size, "--folder", str(folder), "--make_base")
    return [
        Step("make the base", own),
        Step(f"train {STEPS} steps, {processes} process(es)", (*this, "launch", "train", *train), launch),
        Step("load, ask one question", (*this, "infer", *ask)),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns: the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="2b", choices=sorted(SIZES))
    parser.add_argument("--processes", type=int, default=1, help="of the training")
    parser.add_argument("--folder", type=Path, default=Path("work_dirs/real_shape"))
    parser.add_argument("--make_base", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.make_base:
        make_base(args.folder / args.size / "base", args.size)
        return 0
    make_data(args.folder / "data", num_train=8, num_valid=2, num_test=2)
    rows = [step.measure() for step in steps(args.folder, args.size, args.processes)]
    sys.stdout.write(tabulate(rows, headers=["step", "s", "peak GiB"], floatfmt=".1f") + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
