"""A saved checkpoint, loaded alone, gives the logits of the model that was saved.

Whatever training starts from and whatever trains: parameters that train are moved in place of steps. Covers
`model/merging.py`.
"""

from itertools import product
from pathlib import Path

import pytest
import torch
from helpers.runs import arguments

from videomind.model.adapters import adapter, bare
from videomind.model.assembly import combine, load_roles
from videomind.model.checkpoint import LoadSettings, load_model
from videomind.train.command_line.arguments import parse_arguments
from videomind.train.role_trainer import write_role
from videomind.train.role_training import build_model

IDS = torch.tensor([[5, 6, 7, 8, 9, 3]])
# What can train, by name.
WAYS = {
    "adapter": (),
    "new rows": ("--train_new_tokens_only", "True"),
    "merger": ("--tuning_modules", "projector"),
    "tables": ("--lora_enable", "False"),
    "tables and merger": ("--lora_enable", "False", "--tuning_modules", "projector"),
    "merged": ("--merge_adapter", "True"),
    "merged, with merger": ("--merge_adapter", "True", "--tuning_modules", "projector"),
    "all biases": ("--lora_bias", "all"),
    "own biases": ("--lora_bias", "lora_only"),
    "linear": ("--lora_type", "linear"),
    "vision": ("--lora_type", "linear_all"),
}
MERGING = ("merged", "merged, with merger")
WITHOUT_ADAPTER = ("tables", "tables and merger")  # after which there is nothing to merge: refused
# An adapter that goes on cannot become one of another kind: refused.
OF_ADAPTERS = ("new rows", "all biases", "own biases", "linear", "vision")
ROLES = ("grounder", "planner", "verifier", "all_in_one")


def trained(workshop: Path, start: Path, out: Path, role: str, way: str) -> Path:
    """Build what a run would train, move all that trains, save it, and load it again alone."""
    argv = arguments(workshop, out, "--model_name_or_path", str(start), "--role", role, *WAYS[way])
    args = parse_arguments(argv)
    loaded = build_model(args)
    generator = torch.Generator().manual_seed(len(str(out)))
    with torch.no_grad():
        for param in loaded.model.parameters():
            if param.requires_grad:
                param += 0.05 * torch.randn(param.shape, generator=generator)
    write_role(args, loaded, out, dtype=torch.float32)
    again = load_model(out, LoadSettings()).model
    for role_or_base in (role, None):
        ours, theirs = outputs(loaded.model, role_or_base), outputs(again, role_or_base)
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
    return out


def outputs(model, role: str | None) -> dict[str, torch.Tensor]:
    """Logits of a text, features of a video, and what the head says, where there is one."""
    model = model.eval()
    inner = bare(model)
    patches = torch.linspace(-1, 1, 16 * 1176).view(16, 1176)
    with torch.no_grad(), adapter(model, role):
        found = {"logits": model(input_ids=IDS).logits}
        visual = inner.get_submodule(inner.backbone.vision)
        found["video"] = visual(patches, grid_thw=torch.tensor([[1, 4, 4]])).pooler_output
        if inner.head is not None:
            width = inner.config.get_text_config().hidden_size
            clips = torch.linspace(-1, 1, 9 * width).view(9, width)
            out = inner.head([clips], [clips[:1]])
            found |= {"classes": out.class_logits, "offsets": out.offsets}
    return found


FEW = 5  # one case of so many is run by default
CASES = [
    pytest.param(base, role, first, second, marks=[pytest.mark.slow] if number % FEW else [])
    for number, (first, second) in enumerate(product(WAYS, WAYS))
    if first not in MERGING and not (first in WITHOUT_ADAPTER and second in MERGING)
    if second not in OF_ADAPTERS or first in (second, *WITHOUT_ADAPTER)
    for base, role in [(("base", "untied")[number % 2], ROLES[number // 2 % 4])]
    if not (role == "planner" and "new rows" in (first, second))  # it has none
]


@pytest.mark.parametrize(("start", "role"), [("base", "grounder"), ("planner", "verifier")])
def test_nothing_to_merge_is_refused(workshop, tmp_path, start, role):
    folder = workshop / start
    if start == "planner":
        folder = trained(workshop, workshop / "base", tmp_path / "planner", "planner", "adapter")
    with pytest.raises(ValueError, match=f"{folder} has no adapter of the {role} to fold in"):
        trained(workshop, folder, tmp_path / "out", role, "merged")


def test_roles_that_would_share_trained_biases_are_refused(workshop, tmp_path):
    folders = {
        role: trained(workshop, workshop / "base", tmp_path / role, role, way)
        for role, way in (("grounder", "adapter"), ("verifier", "own biases"))
    }
    with pytest.raises(ValueError, match="grounder, verifier cannot be used together.*--lora_bias"):
        load_roles(folders, LoadSettings())


def test_a_role_without_a_head_takes_none_over(workshop, tmp_path):
    """A verifier that starts from a grounder's folder becomes one agent with it."""
    grounder = trained(workshop, workshop / "base", tmp_path / "grounder", "grounder", "adapter")
    verifier = trained(workshop, grounder, tmp_path / "verifier", "verifier", "adapter")
    combine({"grounder": grounder, "verifier": verifier}, tmp_path / "both")
    assert set(load_model(tmp_path / "both", LoadSettings()).model.peft_config) == {"grounder", "verifier"}


def test_roles_on_one_trained_merger_can_share_it(workshop, tmp_path):
    grounder = trained(workshop, workshop / "base", tmp_path / "grounder", "grounder", "merger")
    verifier = trained(workshop, grounder, tmp_path / "verifier", "verifier", "adapter")
    other = trained(workshop, grounder, tmp_path / "other", "verifier", "merger")
    combine({"grounder": grounder, "verifier": verifier}, tmp_path / "both")
    both, alone = (load_model(tmp_path / name, LoadSettings()).model for name in ("both", "verifier"))
    torch.testing.assert_close(outputs(both, "verifier")["video"], outputs(alone, "verifier")["video"])
    with pytest.raises(ValueError, match=r"that .*grounder has not \(.*merger"):
        combine({"grounder": grounder, "verifier": other}, tmp_path / "no")


@pytest.mark.parametrize(("base", "role", "first", "second"), CASES)
def test_what_was_saved_is_what_is_loaded(workshop, tmp_path, base, role, first, second):
    start = trained(workshop, workshop / base, tmp_path / "1", role, first)
    again = trained(workshop, start, tmp_path / "2", role, second)
    trained(workshop, again, tmp_path / "3", role, "adapter")


@pytest.mark.parametrize("second", OF_ADAPTERS)
def test_an_adapter_that_goes_on_does_not_become_another(workshop, tmp_path, second):
    start = trained(workshop, workshop / "base", tmp_path / "start", "grounder", "adapter")
    name, value = WAYS[second]
    with pytest.raises(
        ValueError, match=f"goes on as it is, without {name} {value} \\(it has .*--merge_adapter"
    ):
        trained(workshop, start, tmp_path / "out", "grounder", second)
