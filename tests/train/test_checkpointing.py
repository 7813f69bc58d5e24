"""What a training step computes a graph for: all that trains, and of a frozen vision tower nothing."""

import pytest
import torch
from helpers.batches import model_batch
from helpers.runs import arguments
from torch import nn

from videomind.model.adapters import bare
from videomind.roles import get_role
from videomind.train.command_line.arguments import parse_arguments
from videomind.train.role_training import build_mixture, build_model
from videomind.train.running import refuse_data_parallel

PLACES = {
    "nothing": (),
    "merger": ("--tuning_modules", "projector"),
    "LoRA": ("--lora_type", "qkvo_all"),
}
CHECKPOINTING = {"none": None, "with hooks": {"use_reentrant": False}, "reentrant": {"use_reentrant": True}}


def step(workshop, tmp_path, *extra: str, checkpointing=None):
    """Build a model and run backward for a sample. Returns: the model, and which modules made a graph."""
    role = extra[extra.index("--role") + 1] if "--role" in extra else "grounder"
    still = ("--head_droppath", "0") if get_role(role).has_head else ()
    still += () if "--lora_enable" in extra else ("--lora_dropout", "0")
    args = parse_arguments(arguments(workshop, tmp_path, *extra, *still))
    loaded = build_model(args)
    model, mixture = loaded.model.train(), build_mixture(args, loaded.processor)
    if checkpointing is not None:
        model.gradient_checkpointing_enable(checkpointing)
    graphs: dict[str, bool] = {}
    tower = bare(model).get_submodule(bare(model).backbone.vision)
    for name, module in tower.named_modules():
        module.register_forward_hook(watch(name, graphs))
    model(**model_batch(loaded.processor, [mixture[0]])).loss.backward()
    return model, graphs


def watch(name: str, graphs: dict[str, bool]):
    def hook(module: nn.Module, inputs: tuple, output) -> None:
        found = [output] if isinstance(output, torch.Tensor) else list(getattr(output, "values", list)())
        graphs[name] = any(isinstance(t, torch.Tensor) and t.requires_grad for t in found)

    return hook


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", CHECKPOINTING)
def test_a_frozen_tower_gets_no_graph(workshop, tmp_path, way, place):
    model, graphs = step(workshop, tmp_path, *PLACES[place], checkpointing=CHECKPOINTING[way])
    in_tower = {name: has for name, has in graphs.items() if name and not name.startswith("merger")}
    assert in_tower
    if place == "LoRA":
        assert any(in_tower.values())
    else:
        assert not any(in_tower.values()), [name for name, has in in_tower.items() if has]
    assert graphs["merger"] == (place != "nothing")
    assert without_gradient(model) == []


def without_gradient(model: nn.Module) -> list[str]:
    return [name for name, param in model.named_parameters() if param.requires_grad and param.grad is None]


EXTRAS = ((), ("--lora_type", "linear_all"), ("--train_new_tokens_only", "True"), ("--lora_enable", "False"))
WAYS = [
    (role, extra)
    for role in ("grounder", "planner", "verifier", "answerer", "all_in_one")
    for extra in EXTRAS
    if get_role(role).trains_tables or "--train_new_tokens_only" not in extra
]


@pytest.mark.parametrize(("role", "extra"), WAYS)
def test_all_that_trains_takes_part_in_every_step(workshop, tmp_path, role, extra):
    """So that plain DDP need not look for what does not; with samples that have moments and none."""
    rows = '{"video": "%s", "duration": 20, "query": "a square", "pred": [[1, 4]], "positive": true}\n'
    video = next((workshop / "data/charades_sta/videos_3fps_480_noaudio").glob("*.mp4"))
    (tmp_path / "verifying.jsonl").write_text(rows % video * 4)
    for datasets in ("charades_sta", str(tmp_path / "verifying.jsonl")):
        model, _ = step(workshop, tmp_path, "--role", role, "--datasets", datasets, *extra)
        if not any(param.requires_grad for param in model.parameters()):
            continue
        assert without_gradient(model) == []


def test_one_process_for_several_devices_is_refused(workshop, tmp_path):
    args = parse_arguments(arguments(workshop, tmp_path))
    args.training._n_gpu = 3
    with pytest.raises(ValueError, match="3 devices are visible.*videomind launch train"):
        refuse_data_parallel(args.training)
    args.training._n_gpu = 1
    refuse_data_parallel(args.training)
