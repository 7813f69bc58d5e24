"""A base is the one that a checkpoint was trained on, whatever it is called and wherever it lies."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.runs import arguments
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from videomind.model.assembly import combine
from videomind.model.bases import fingerprint
from videomind.model.checkpoint import LoadSettings, load_model
from videomind.model.saving import save_full
from videomind.train.command_line.arguments import parse_arguments
from videomind.train.role_trainer import write_role
from videomind.train.role_training import build_model

REVISIONS = ("1" * 40, "2" * 40)
IDS = torch.tensor([[5, 6, 7, 8]])


def publish(cache: Path, name: str, revision: str, folder: Path) -> None:
    """Put a model into a cache of the hub, as its newest revision."""
    home = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, home / "snapshots" / revision)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs/main").write_text(revision)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A cache of the hub, which itself cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def trained(workshop: Path, start: str | Path, out: Path, role: str = "grounder", *extra: str) -> Path:
    args = parse_arguments(
        arguments(workshop, out, "--model_name_or_path", str(start), "--role", role, *extra)
    )
    write_role(args, build_model(args), out, dtype=torch.float32)
    return out


def config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_model(folder, LoadSettings()).model.eval()(input_ids=IDS).logits


def change(folder: Path, name: str) -> None:
    """Move the values of one tensor."""
    path = next(path for path in folder.glob("*.safetensors") if name in load_file(path))
    state = load_file(path)
    state[name] = state[name] + 0.5
    save_file(state, path, metadata={"format": "pt"})


def test_a_base_from_the_hub_is_recorded_by_its_id(workshop, tmp_path, hub, monkeypatch):
    publish(hub, "acme/tiny", REVISIONS[0], workshop / "base")
    first = trained(workshop, "acme/tiny", tmp_path / "first")
    again = trained(workshop, first, tmp_path / "again")
    for folder in (first, again):
        assert (config(folder)["base_model_path"], config(folder)["base_revision"]) == (
            "acme/tiny",
            REVISIONS[0],
        )
        assert "snapshots" not in (folder / "config.json").read_text()
        assert "snapshots" not in (folder / "grounder/adapter_config.json").read_text()
    before = logits(first)
    other = Path(shutil.copytree(workshop / "base", tmp_path / "other"))
    change(other, "model.norm.weight")
    publish(hub, "acme/tiny", REVISIONS[1], other)
    moved = tmp_path / "elsewhere"
    hub.rename(moved)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(moved))
    assert torch.equal(logits(first), before)


def test_a_role_on_the_hub_is_treated_as_the_same_folder_here(workshop, tmp_path, hub):
    publish(hub, "acme/tiny", REVISIONS[0], workshop / "base")
    folders = {r: trained(workshop, "acme/tiny", tmp_path / r, r) for r in ("grounder", "verifier")}
    combine(folders, tmp_path / "both")
    publish(hub, "acme/agent", REVISIONS[0], tmp_path / "both")
    for role in ("grounder", "verifier", "answerer"):
        args = parse_arguments(
            arguments(workshop, tmp_path / "x", "--model_name_or_path", "acme/agent", "--role", role)
        )
        assert set(build_model(args).model.peft_config) == {role}


def test_a_base_is_known_by_its_weights(workshop, tmp_path):
    """Copied, renamed and cut into other files it is the same; with one tensor changed it is another."""
    base = workshop / "base"
    loaded = load_model(base, LoadSettings())
    save_full(loaded.model, tmp_path / "cut", loaded.processor, shard_size="5GB")
    assert {len(list(path.glob("*.safetensors"))) > 1 for path in (base, tmp_path / "cut")} == {True, False}
    (tmp_path / "cut/config.json").write_bytes((base / "config.json").read_bytes())
    assert fingerprint(tmp_path / "cut") == fingerprint(base)
    found = {fingerprint(base)}
    names = sorted(load_file(tmp_path / "cut/model.safetensors"))
    for number, name in enumerate(names[:: max(len(names) // 6, 1)]):
        copy = Path(shutil.copytree(base, tmp_path / str(number)))
        change(copy, name)
        found.add(fingerprint(copy))
    assert len(found) >= 7


def test_roles_are_of_one_base_by_its_weights_not_its_name(workshop, tmp_path):
    copied = Path(shutil.copytree(workshop / "base", tmp_path / "renamed"))
    grounder = trained(workshop, workshop / "base", tmp_path / "grounder")
    combine({"grounder": grounder, "verifier": trained(workshop, copied, tmp_path / "v", "verifier")},
            tmp_path / "both")  # fmt: skip
    other = Path(shutil.copytree(workshop / "base", tmp_path / "other/base"))
    change(other, "model.norm.weight")
    with pytest.raises(ValueError, match="stands on the base .* use roles of one base"):
        combine(
            {"grounder": grounder, "verifier": trained(workshop, other, tmp_path / "w", "verifier")},
            tmp_path / "no",
        )


def test_a_base_is_looked_for_from_the_checkpoint_and_never_mistaken(workshop, tmp_path, monkeypatch):
    """Another checkout's base of the same name is not taken."""
    for name in ("mine", "yours"):
        shutil.copytree(workshop / "base", tmp_path / name / "work/base")
    change(tmp_path / "yours/work/base", "model.norm.weight")
    monkeypatch.chdir(tmp_path / "mine")
    folder = trained(workshop, "work/base", tmp_path / "mine/work/grounder")
    before = logits(folder)
    monkeypatch.chdir(tmp_path / "yours")
    assert torch.equal(logits(folder), before)
    shutil.rmtree(tmp_path / "mine/work/base")
    with pytest.raises(ValueError, match="trained on other weights than those in .*yours/work/base"):
        load_model(folder, LoadSettings())
    chosen = load_model(folder, LoadSettings(base_path="work/base"))
    assert chosen.base_folder == Path("work/base")
