"""What the Slurm script starts, and that a job whose time runs out is queued again; Slurm is pretended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.runs import REPO

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Slurm runs on Linux")
PRETENDED = {
    "srun": 'echo "srun $1 $SRUN_CPUS_PER_TASK" >>calls; echo $$ >step; SLURM_NODEID=1 exec "${@:2}"',
    "scancel": 'echo "scancel $*" >>calls; kill -USR1 "$(<step)"',
    "scontrol": '[[ $1 == show ]] && { echo first; sleep 0.1; echo second; } || echo "scontrol $*" >>calls',
}
LAUNCHED = 'echo "$NODE_RANK of $NNODES at $MASTER_ADDR:$MASTER_PORT, $*" >>calls\n'
# As the launcher: it ends with 75 some time after it was asked to; here the time limit is near at once.
CUT = "trap 'sleep 0.3; exit 75' USR1\nkill -USR1 $(<batch)\nwhile :; do sleep 0.1; done\n"
LATE = "trap '' USR1\nkill -USR1 $(<batch)\nsleep 0.3\nexit 0\n"


def submit(folder: Path, script: str) -> tuple[int, list[str]]:
    """Run the batch script as Slurm would. Returns: its exit code, and what was called."""
    for name, text in PRETENDED.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    (folder / "run.sh").write_text(LAUNCHED + script)
    env = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SLURM_NNODES": "2"}
    env |= {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "40017", "SLURM_CPUS_PER_TASK": "64"}
    env.pop("MASTER_PORT", None)
    command = 'echo $$ >batch; exec bash "$0" run.sh --x 1'
    batch = ["bash", "-c", command, str(REPO / "scripts/slurm/train.sbatch")]
    code = subprocess.run(batch, env=env, cwd=folder, timeout=60).returncode
    return code, (folder / "calls").read_text().splitlines()


START = ["srun --kill-on-bad-exit=1 64", "1 of 2 at first:20017, --x 1"]
AGAIN = ["scancel --signal=USR1 40017", "scontrol requeue 40017"]


@pytest.mark.parametrize(
    ("script", "code", "calls"),
    [("exit 0", 0, []), ("exit 2", 2, []), (CUT, 0, AGAIN), (LATE, 0, AGAIN), ("kill -9 $$", 137, [])],
)
def test_a_job_is_queued_again_when_its_time_runs_out(tmp_path, script, code, calls):
    assert submit(tmp_path, script) == (code, START + calls)


@pytest.mark.parametrize("name", ["train", "eval"])
def test_a_job_asks_for_cores_devices_and_another_start(name):
    text = (REPO / f"scripts/slurm/{name}.sbatch").read_text()
    asked = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"ntasks-per-node 1", "gpus-per-node 8", "cpus-per-task 64", "requeue", "open-mode append"} <= {
        *asked
    }
    assert ("signal B:USR1@300" in asked) == (name == "train")
