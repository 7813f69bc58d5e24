"""A backbone from outside of the package trains and grounds as the published one does."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import stripes
from helpers.batches import model_batch
from helpers.runs import arguments, losses
from safetensors.torch import load_file

from videomind.agent.pipeline import Pipeline, prepare
from videomind.agent.samples import ChainSettings, grounder_sample
from videomind.backbones import registry
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Grounding
from videomind.encoding.encoder import Encoder
from videomind.model.adapters import bare
from videomind.model.checkpoint import LoadSettings, load_model
from videomind.roles import GROUNDER_RESPONSE, BudgetOverride
from videomind.train.mixture import Item
from videomind.train.optim import parameter_groups
from videomind.train.train import main
from videomind.video.excerpts import read_excerpt

TINY = BudgetOverride(min_tokens=4, max_tokens=4, max_frames=7)


@pytest.fixture
def backbone(monkeypatch) -> stripes.Stripes:
    monkeypatch.setattr(registry, "_BACKBONES", dict(registry._BACKBONES))
    registry.register(declared := stripes.Stripes())
    return declared


@pytest.fixture
def base(tmp_path, backbone) -> Path:
    torch.manual_seed(0)
    stripes.write_base(folder := tmp_path / "base")
    return folder


def test_it_is_declared_in_at_most_150_lines():
    assert len(Path(stripes.__file__).read_text(encoding="utf-8").splitlines()) <= 150


def test_it_trains_saves_and_loads(workshop, tmp_path, base):
    extra = ("--model_name_or_path", str(base), "--base_model", "stripes", "--max_steps", "1")
    assert main(arguments(workshop, tmp_path / "out", *extra, "--save_steps", "1", "--max_frames", "5")) == 0
    assert list(losses(tmp_path / "out")) == [1]
    saved = load_file(tmp_path / "out/grounder/adapter_model.safetensors")
    assert any(".mind.layers.0.self_attn.q_proj.lora_A." in name for name in saved)
    loaded = load_model(tmp_path / "out", LoadSettings())
    assert loaded.processor.backbone.name == bare(loaded.model).backbone.name == "stripes"
    assert set(loaded.model.peft_config) == {"grounder"} and bare(loaded.model).head is not None


@pytest.mark.slow
def test_it_learns_to_ground(workshop, base):
    """A few steps on one sample: then it says so, and points at moments."""
    path = str(next((workshop / "data").rglob("*.mp4")))
    anno = Annotation(video_path=path, duration=20.0, query="a red square", span=[[4.0, 9.0]])
    torch.manual_seed(0)
    loaded = load_model(base, LoadSettings())
    loaded.model.add_head()
    encoder = Encoder(loaded.processor)
    batch = batch_of(encoder, anno)
    groups = parameter_groups(loaded.model, lr=5e-3, head_lr=1e-4, weight_decay=0)
    optimizer = torch.optim.AdamW([{"params": group["params"], "lr": group["lr"]} for group in groups])
    history = []
    for _ in range(40):
        optimizer.zero_grad()
        out = loaded.model.train()(**batch)
        out.loss.backward()
        optimizer.step()
        history.append(out)
    assert history[-1].regression_loss < history[0].regression_loss
    found = Pipeline(loaded.model, loaded.processor, max_new_tokens=60).ground(
        prepare(grounder_sample(path, anno.query, ChainSettings(budget=TINY)), encoder)
    )
    assert found.success and found.response == GROUNDER_RESPONSE
    assert found.boundaries[0, 2] > 0.5  # its score
    assert (found.boundaries[0, :2] * 20).tolist() == pytest.approx([4.0, 9.0], abs=2.0)


def batch_of(encoder: Encoder, anno: Annotation) -> dict:
    sample = Grounding().sample(anno, random.Random(0))
    budget = TINY.applied(sample.excerpt.budget)
    sample = replace(sample, excerpt=replace(sample.excerpt, budget=budget))
    frames = read_excerpt(encoder.excerpt(sample)).frames
    assert len(frames) == 7 and frames.shape[2] % 18 == 0  # an odd count: a frame is a step
    item = Item(encoded=encoder(sample, frames, random.Random(0)), bad=[])
    return model_batch(encoder.processor, [item])


@pytest.mark.parametrize("name", ["stripes", "qwen2_vl"])
def test_another_backbone_than_the_folders_is_refused(workshop, base, name):
    """Whether the folder is of the package's own or of the new one."""
    folder, other = (workshop / "base", "stripes") if name == "qwen2_vl" else (base, "qwen2_vl")
    with pytest.raises(ValueError, match=rf"is of the backbone {name}, not {other} \(--base_model\)"):
        load_model(folder, LoadSettings(base_model=other))


def test_names_that_are_taken_are_refused(backbone):
    with pytest.raises(ValueError, match=r"stripes shares .*'agent_stripes'"):
        registry.register(stripes.Stripes())


def test_an_unknown_model_type_is_refused(base):
    config = base / "config.json"
    config.write_text(config.read_text().replace('"stripes"', '"stripe"'))
    with pytest.raises(ValueError, match="unknown model_type 'stripe'.*Did you mean 'stripes'"):
        load_model(base, LoadSettings())


def test_a_role_that_contradicts_itself_is_refused(base):
    config = base / "config.json"
    config.write_text(config.read_text().replace("{", '{"base_model": "qwen2_vl", ', 1))
    with pytest.raises(ValueError, match="base_model 'qwen2_vl' contradicts model_type 'stripes'"):
        load_model(base, LoadSettings())
