"""Every way to train, saved and loaded again, gives the logits of the model that trained.

Roles x DeepSpeed stages x precisions x what a run starts from and writes x what trains. By default a subset
in which every two of these meet, and some more; all of them with VIDEOMIND_WHOLE_MATRIX=1.
"""

import os
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from helpers.ranks import run_ranks
from helpers.runs import arguments, needs_deepspeed, sharding
from helpers.watched import IDS, LOGITS

from videomind.model.checkpoint import LoadSettings, load_model
from videomind.roles import ROLES
from videomind.train.command_line.arguments import parse_arguments
from videomind.train.role_trainer import write_role
from videomind.train.role_training import FULL, build_model
from videomind.train.trainer import FINISHED

STAGES = ("none", "zero2", "zero3", "zero3_offload")
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
TOLERANCES = {"float32": 1e-4, "bf16": 0.1}  # of logits up to 4; bf16 has 8 bits
WAYS = ("fresh", "from role", "resume", "save full")
TRAINS = {
    "adapter": (),
    "merger": ("--tuning_modules", "projector"),
    "tables": ("--lora_enable", "False"),
    "merged": ("--merge_adapter", "True"),  # and a new adapter: starts from a role whatever the way
}
PROCESSES = 2
Case = tuple[str, ...]


def pairwise(axes: list[tuple[str, ...]]) -> list[Case]:
    """Choose few cases in which every two values of different axes meet."""

    def pairs(case: Case) -> set:
        return set(combinations(enumerate(case), 2))

    left = set().union(*(pairs(case) for case in product(*axes)))
    chosen = []
    while left:
        best = max(product(*axes), key=lambda case: len(pairs(case) & left))
        chosen.append(best)
        left -= pairs(best)
    return chosen


AXES = [tuple(ROLES), STAGES, tuple(DTYPES), WAYS, tuple(TRAINS)]
# Three that must meet: parameters of two types under ZeRO-3, and trained tables that share a storage.
MORE = [
    ("grounder", "zero3", "bf16", "fresh", "tables"),
    ("grounder", "zero3", "bf16", "fresh", "merger"),
    ("grounder", "zero2", "bf16", "save full", "adapter"),
]
WHOLE = os.environ.get("VIDEOMIND_WHOLE_MATRIX")
CASES = list(product(*AXES)) if WHOLE else list(dict.fromkeys([*pairwise(AXES), *MORE]))


def test_every_two_choices_meet():
    chosen = pairwise(AXES)
    for (i, one), (j, two) in combinations(enumerate(AXES), 2):
        assert {(case[i], case[j]) for case in chosen} == set(product(one, two))


def start_of(workshop: Path, tmp_path: Path, role: str) -> Path:
    """A role checkpoint whose adapter, tables and head are not as they start."""
    args = parse_arguments(arguments(workshop, tmp_path / "start", "--role", role))
    loaded = build_model(args)
    with torch.no_grad():
        for param in loaded.model.parameters():
            if param.requires_grad:
                param += 0.02 * torch.randn_like(param)
    write_role(args, loaded, tmp_path / "start", dtype=torch.float32)
    return tmp_path / "start"


def logits(folder: Path, dtype: torch.dtype) -> torch.Tensor:
    model = load_model(folder, LoadSettings(dtype=dtype)).model.eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits.float()


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize(("role", "stage", "dtype", "way", "trains"), CASES)
def test_what_is_saved_is_what_trained(workshop, tmp_path, role, stage, dtype, way, trains):
    out = tmp_path / "out"
    has_role = way == "from role" or trains == "merged"
    start = start_of(workshop, tmp_path, role) if has_role else workshop / "base"
    extra = [*TRAINS[trains]]
    extra += ["--role", role, "--model_name_or_path", str(start), "--bf16", str(dtype == "bf16")]
    extra += [
        "--datasets",
        "charades_sta",
        "--learning_rate",
        "1e-2",
        "--max_steps",
        "2",
        "--save_steps",
        "1",
    ]
    extra += ["--save_full_model", str(way == "save full"), "--save_total_limit", "2"]
    extra += sharding(stage)
    argvs = [arguments(workshop, out, *extra)] * PROCESSES
    run_ranks(tmp_path / "screens", argvs, main="helpers.watched")
    if way == "resume":
        for path in (out / FINISHED, out / "checkpoint-2/complete", out / LOGITS):
            path.unlink()
        run_ranks(tmp_path / "again", argvs, main="helpers.watched")
    trained = torch.load(out / LOGITS)
    learned = (trained - logits(start, DTYPES[dtype])).abs().max()
    for folder in (out, out / FULL) if way == "save full" else (out,):
        error = (logits(folder, DTYPES[dtype]) - trained).abs().max()
        assert error < TOLERANCES[dtype] and error < learned / 2, (folder, error, learned)
