"""Starts a command on all visible devices of one node or many; all training and evaluation scripts end here.

`videomind launch train|infer|train-chat ARGUMENTS...`. Besides the driver's own list of visible devices,
environment variables say where (all optional):

    NPROC_PER_NODE    processes per node (default: one per visible device, 1 on a CPU)
    NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT       several nodes (default: this one alone)
    GLOBAL_BATCH      training: samples per optimizer step over all devices (default 32)
    BATCH_PER_DEVICE  training: samples per forward pass (default 1)
    DEEPSPEED         training: zero2 (default on Linux), zero2_offload, zero3, zero3_offload, a JSON file, or
                      none

`--show` among the arguments prints what would be started, and starts nothing. SIGUSR1 ends a training after
its step, with a checkpoint and exit code 75; a rerun goes on from there.
A recipe's `launch` section holds defaults of its own for the last three and the port; the environment wins
over it, and the command line over both.
"""

import importlib
import importlib.util
import logging
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from videomind.device import Device, detect
from videomind.environment import drop_ranks
from videomind.logger import run_command
from videomind.roles import nearest
from videomind.runs import torchrun
from videomind.runs.cores import usable_cores
from videomind.runs.recipes import given_arguments, launch_section

log = logging.getLogger(__name__)

TRAINING = {"train": "videomind.train.train", "train-chat": "videomind.video_chatgpt.train"}
COMMANDS = {**TRAINING, "infer": "videomind.agent.infer"}
PORTS = {"train": 29500, "train-chat": 29500, "infer": 29501}  # of the first node, where they meet
REPOSITORY = Path(__file__).parents[2]
BATCH, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"
DEEPSPEED_FOLDER = REPOSITORY / "scripts/deepspeed"
SHOW = "--show"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Which processes a run has, and where they meet.

    Attributes:
        num_nodes: nodes of the run.
        node_rank: number of this node.
        per_node: processes on each node.
        address: of the first node.
        port: on the first node.
    """

    num_nodes: int
    node_rank: int
    per_node: int
    address: str
    port: int

    @property
    def world_size(self) -> int:
        """Processes over all nodes."""
        return self.num_nodes * self.per_node

    def flags(self) -> list[str]:
        """Write the same as torchrun's arguments."""
        options = {
            "nnodes": self.num_nodes,
            "node_rank": self.node_rank,
            "nproc_per_node": self.per_node,
            "master_addr": self.address,
            "master_port": self.port,
        }
        return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def placement(environ: Mapping[str, str], device: Device, default_port: int) -> Placement:
    """Read where a run takes place.

    Args:
        environ: environment variables, see the module.
        device: what this node has.
        default_port: where nothing else is said.

    Raises:
        ValueError: a variable is not a number in its range.
    """
    num_nodes = _number(environ, "NNODES", 1, lowest=1)
    layout = Placement(
        num_nodes=num_nodes,
        node_rank=_number(environ, "NODE_RANK", 0, lowest=0),
        per_node=_number(environ, "NPROC_PER_NODE", max(device.count, 1), lowest=1),
        address=environ.get("MASTER_ADDR") or "127.0.0.1",
        port=_number(environ, "MASTER_PORT", default_port, lowest=1),
    )
    if layout.node_rank >= num_nodes:
        raise ValueError(
            f"NODE_RANK is {layout.node_rank}. Allowed with NNODES={num_nodes}: 0 to {num_nodes - 1}."
        )
    if num_nodes > 1 and not environ.get("MASTER_ADDR"):
        raise ValueError(f"NNODES is {num_nodes}: name the first node with MASTER_ADDR")
    return layout


def _number(environ: Mapping[str, str], name: str, default: int, *, lowest: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < lowest:
        raise ValueError(f"{name} is {text!r}. Allowed: whole numbers from {lowest}.")
    return int(text)


def training_arguments(
    environ: Mapping[str, str],
    section: Mapping[str, object],
    layout: Placement,
    kind: str,
    arguments: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Say how a global batch is cut, and which DeepSpeed stage runs.

    A batch size of the command line takes the place of BATCH_PER_DEVICE, so that the global batch stays what
    it is; where the accumulated steps are given as well, the two say what a step is.

    Args:
        environ: environment variables, see the module.
        section: a recipe's `launch` section.
        layout: the run's processes.
        kind: of the device, see `Device`.
        arguments: of the command line, name to value.

    Raises:
        ValueError: the processes cannot share the batch, or there is no such DeepSpeed configuration.
    """
    global_batch, batch = (
        _number(environ, variable, int(str(section.get(name, default))), lowest=1)
        for variable, name, default in (
            ("GLOBAL_BATCH", "global_batch", 32),
            ("BATCH_PER_DEVICE", "batch_per_device", 1),
        )
    )
    if BATCH in arguments:
        batch = _number(arguments, BATCH, batch, lowest=1)
    per_pass = layout.world_size * batch
    if ACCUMULATION in arguments:
        global_batch = per_pass * _number(arguments, ACCUMULATION, 1, lowest=1)
    if global_batch % per_pass:
        raise ValueError(
            f"A global batch of {global_batch} (GLOBAL_BATCH) cannot be shared by {layout.num_nodes} node(s) "
            f"x {layout.per_node} process(es) x {batch} sample(s) (BATCH_PER_DEVICE): "
            f"{per_pass} must divide it."
        )
    cut = [f"--{BATCH}", str(batch), f"--{ACCUMULATION}", str(global_batch // per_pass)]
    stage = environ.get("DEEPSPEED") or str(section.get("deepspeed", default_stage()))
    if stage == "none":
        return cut
    file = deepspeed_file(stage)
    if problem := missing_for_deepspeed(kind):
        raise ValueError(f"{problem}; DEEPSPEED=none trains without.")
    return [*cut, "--deepspeed", str(file)]


def default_stage() -> str:
    """Choose the published recipes' stage; DeepSpeed spares the memory of accelerators, and needs Linux."""
    return "zero2" if sys.platform == "linux" else "none"


def missing_for_deepspeed(kind: str) -> str | None:
    """Say what DeepSpeed lacks here, if anything.

    Args:
        kind: of the device, see `Device`.
    """
    if importlib.util.find_spec("deepspeed") is None:
        return "DeepSpeed is not installed here (on Linux: pip install -e '.[deepspeed]')"
    if kind == "cpu" and not any(map(shutil.which, ("c++", "g++"))):
        return "DeepSpeed needs a C++ compiler on a CPU and there is none (on Debian: apt-get install g++)"
    return None


def deepspeed_file(stage: str) -> Path:
    """Find a DeepSpeed configuration by its name or path.

    Raises:
        ValueError: there is none.
    """
    if Path(stage).is_file():
        return Path(stage)
    names = sorted(path.stem for path in DEEPSPEED_FOLDER.glob("*.json"))
    if stage not in names:
        raise ValueError(
            f"No DeepSpeed configuration {stage!r} (DEEPSPEED). Allowed: none, a JSON file, or one of "
            f"{', '.join(names)}."
        )
    return DEEPSPEED_FOLDER / f"{stage}.json"


def prepare_environment(device: Device, per_node: int) -> None:
    """Set what the processes inherit: DeepSpeed's accelerator, and threads that do not fight for cores."""
    if device.kind == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(usable_cores() // per_node, 1)))


def is_free(port: int) -> bool:
    """Tell whether nothing on this machine listens at a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Ask the system for a port that nothing uses."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def launch(command: str, argv: Sequence[str]) -> int:
    """Start a command as the environment says.

    Args:
        command: one of COMMANDS.
        argv: its arguments.

    Returns:
        Its exit code.

    Raises:
        ValueError: something in the environment cannot be used.
    """
    if command not in COMMANDS:
        raise ValueError(f"Unknown command {command!r} of videomind launch. {nearest(command, COMMANDS)}")
    device, section = detect(), launch_section(argv)
    port = int(str(section.get("master_port", PORTS[command])))
    layout = placement(os.environ, device, port)
    if command in TRAINING:
        arguments = given_arguments(argv)
        argv = [*training_arguments(os.environ, section, layout, device.kind, arguments), *argv]
    shows, argv = SHOW in argv, [part for part in argv if part != SHOW]
    torchrun_argv = [*layout.flags(), "-m", "videomind.runs.processes", COMMANDS[command], *argv]
    if shows:
        sys.stdout.write(f"torchrun {shlex.join(torchrun_argv)}\n")
        return 0
    if layout.num_nodes == 1 and not os.environ.get("MASTER_PORT") and not is_free(layout.port):
        log.info("Port %d is taken: the processes meet at another one", layout.port)
        layout = replace(layout, port=free_port())
        torchrun_argv[: len(layout.flags())] = layout.flags()
    prepare_environment(device, layout.per_node)
    if command not in TRAINING and layout.world_size == 1:
        return importlib.import_module(COMMANDS[command]).main(argv)
    return torchrun.main(torchrun_argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `videomind launch`.

    Returns:
        The command's exit code; 2 for an environment that cannot be used.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(f"{__doc__}")
        return 0 if argv else 2
    left = drop_ranks(os.environ)

    def run(argv: Sequence[str]) -> int:
        if left:
            log.warning("Left over from another launcher, not used: %s", ", ".join(left))
        return launch(argv[0], argv[1:])

    return run_command(lambda: argv, run)


if __name__ == "__main__":
    sys.exit(main())
