"""A step's loss and gradient are those of its samples one by one, however a global batch is cut."""

import json
from pathlib import Path

import pytest
import torch
from helpers.batches import model_batch
from helpers.in_order import main
from helpers.ranks import run_ranks
from helpers.role_rows import ROWS, role_row, videos_of
from helpers.runs import arguments, logged, needs_deepspeed, sharding

from videomind.train.command_line.arguments import parse_arguments
from videomind.train.mixture import Draw
from videomind.train.role_training import build_mixture, build_model

SAMPLES = 4
# Of one process: (batch, accumulation). Of two: (batch, DeepSpeed's stage).
ALONE = ((1, 4), (2, 2), (4, 1))
TOGETHER = ((2, "none"), (2, "zero2"), (2, "zero3"), (1, "zero2"))
LENGTHS = ("a red square", "a red square that moves over the floor", "it", "the blue one beside it")


def dataset_of(workshop: Path, tmp_path: Path, role: str) -> str:
    """Samples of a role, with prompts of different lengths. Gives `--datasets`."""
    videos = videos_of(workshop)
    rows = [role_row(role, videos[i % len(videos)]) | {"query": text} for i, text in enumerate(LENGTHS)]
    path = tmp_path / f"{role}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def reference(argv: list[str]) -> tuple[float, float]:
    """The mean of the samples' losses, each computed alone, and the norm of its gradient."""
    args = parse_arguments(argv)
    torch.manual_seed(args.training.seed)
    loaded = build_model(args)
    model, mixture = loaded.model.train(), build_mixture(args, loaded.processor)
    total = 0.0
    for index in range(SAMPLES):
        loss = model(**model_batch(loaded.processor, [mixture[Draw(index, 0)]])).loss / SAMPLES
        loss.backward()
        total += loss.item()
    grads = [param.grad.double() for param in model.parameters() if param.grad is not None]
    return total, torch.stack([grad.norm() for grad in grads]).norm().item()


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("role", ROWS)
def test_loss_and_gradient_are_those_of_the_samples_one_by_one(workshop, tmp_path, role):
    common = ("--role", role, "--datasets", dataset_of(workshop, tmp_path, role), "--lora_dropout", "0")
    common += ("--head_droppath", "0") if role == "grounder" else ()
    common += ("--max_steps", "1", "--save_steps", "1", "--max_grad_norm", "1e9")
    expected = reference(arguments(workshop, tmp_path / "never", *common))
    ways = [(f"{batch} x {steps}", 1, batch, steps, "none") for batch, steps in ALONE]
    ways += [(f"2 x {batch}, {s}", 2, batch, SAMPLES // 2 // batch, s) for batch, s in TOGETHER]
    for way, processes, batch, steps, stage in ways:
        out = tmp_path / way.replace(" ", "")
        cut = ("--per_device_train_batch_size", str(batch), "--gradient_accumulation_steps", str(steps))
        argv = arguments(workshop, out, *common, *cut)
        argv += sharding(stage)
        if processes == 1:
            assert main(argv) == 0
        else:
            run_ranks(tmp_path / f"screens_{out.name}", [argv] * processes, main="helpers.in_order")
        (step,) = logged(out)
        assert step["loss"] == pytest.approx(expected[0], rel=1e-5, abs=1e-4), way  # it is logged rounded
        assert step["grad_norm"] == pytest.approx(expected[1], rel=1e-4), way
