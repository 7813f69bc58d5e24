"""Processes that hold different parameters, as `helpers.ranks` starts them."""

import os
import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist

from videomind.runs.together import from_all, from_first
from videomind.train.agreement import check_equal


def main(argv: Sequence[str]) -> int:
    """Compare a model that differs as the first word says. Returns: 2 where that was refused."""
    dist.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    assert from_first(lambda: rank + 7) == 7 and from_all(rank) == [0, 1]
    model = torch.nn.Linear(3, 3).to(getattr(torch, argv[1]))
    for param in model.parameters():
        torch.nn.init.ones_(param)
    model.bias.requires_grad_(argv[0] != "frozen")
    with torch.no_grad():
        if argv[0] in ("bias", "frozen"):
            model.bias[2] += 0.01 * rank
    try:
        check_equal(model, step=rank if argv[0] == "step" else 3)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0
