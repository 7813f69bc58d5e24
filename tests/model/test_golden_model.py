"""The role model against the original system: positions, logits, losses, gradients, a short fine-tune.

Covers `model/role_model.py`.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.batches import model_batch
from helpers.goldens import golden_manifest, output_names, slow_if_untied
from torch import nn

from videomind.backbones.registry import get_backbone
from videomind.dataset.schema import Annotation, Sample
from videomind.dataset.views import Grounding, Planning, Verifying
from videomind.encoding.encoder import Encoder
from videomind.model.adapters import bare
from videomind.model.checkpoint import LoadSettings, load_model, merge_adapter
from videomind.model.disk_format import ours_to_published
from videomind.roles import VisualBudget
from videomind.train.mixture import Item
from videomind.video.excerpts import read_excerpt
from videomind.video.request import Excerpt

VIEWS = {
    "grounder": ("grounding", Grounding),
    "verifier": ("verifying", Verifying),
    "planner": ("planning", Planning),
}
CASES = [case["id"] for case in golden_manifest("model")["cases"]]
# Frames that the original's processor was fed, by the grounder's sample they belong to.
FRAMES = {
    case["inputs"]["sample"]: name
    for case in golden_manifest("model")["cases"]
    for name in output_names(case)
    if name.endswith(".npy")
}


QWEN2_VL = get_backbone("qwen2_vl")


def published(name: str) -> str:
    return ours_to_published(name, QWEN2_VL)


def cases(kind: str) -> list[str]:
    return [case for case in CASES if case.startswith(kind + ".")]


def load_trainable(golden, case_id: str, role: str):
    """A role model set up as the recordings were: one adapter, no dropout of any kind."""
    folder = golden.case("model", case_id)["inputs"]["checkpoint"]
    loaded = load_model(folder, LoadSettings(), roles=[role])
    model = loaded.model
    model.set_adapter(role)
    if bare(model).head is not None:
        bare(model).head.requires_grad_(role == "grounder")
        bare(model).head.set_droppath(0.0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return loaded.processor, model.train()


def batch_of(golden, processor, role: str, samples: list[int], pos_clips: list[list[int]] | None):
    section, view = VIEWS[role]
    annos = [Annotation(**golden.json("model/annos.json")[section][i]) for i in samples]
    encoder = Encoder(processor)
    items = []
    for i, anno in zip(samples, annos, strict=True):
        sample = view().sample(anno, random.Random(0))
        if role == "grounder" and i in FRAMES:
            frames = torch.from_numpy(np.load(golden.root / "model" / FRAMES[i]))
        else:
            frames = read_excerpt(encoder.excerpt(sample)).frames
        items.append(Item(encoded=encoder(sample, frames, random.Random(0)), bad=[]))
    batch = model_batch(processor, items)
    if pos_clips is not None:
        chosen = zip(batch["targets"], pos_clips, strict=True)
        batch["targets"] = [replace(targets, pos_clip=torch.tensor(clips)) for targets, clips in chosen]
    return batch


def budget_of(video: dict) -> VisualBudget:
    """The budget of a recorded message."""
    return VisualBudget(
        min_tokens=video["min_pixels"] // QWEN2_VL.units.pixels_per_token,
        max_tokens=video["max_pixels"] // QWEN2_VL.units.pixels_per_token,
        max_frames=video["max_frames"],
        fps=video["fps"],
        units=QWEN2_VL.units,
    )


def step(model, batch):
    model.zero_grad()
    out = model(**batch)
    out.loss.backward()
    return out, {
        published(n): p.grad.norm().item() for n, p in model.named_parameters() if p.grad is not None
    }


def assert_norms(actual: dict, expected: dict):
    assert set(expected) <= set(actual)
    for name, norm in expected.items():
        assert actual[name] == pytest.approx(norm, rel=1e-3, abs=1e-6), name


@pytest.mark.golden
@pytest.mark.parametrize("case_id", cases("base_forward"))
def test_base_forward(golden, case_id):
    info, arrays = golden.json(f"model/{case_id}.json"), golden.npz(f"model/{case_id}.npz")
    loaded = load_model(golden.case("model", case_id)["inputs"], LoadSettings())
    model = loaded.model.eval()
    video, text = info["messages"][0]["content"]
    excerpt = Excerpt(path=video["video"], budget=budget_of(video))
    sample = Sample(role="answerer", excerpt=excerpt, prompt=text["text"])
    out = Encoder(loaded.processor)(sample, read_excerpt(excerpt).frames, random.Random(0))
    ids, grid = out.input_ids[None], out.grid[None]
    pixels = loaded.processor.normalized(out.pixel_values)
    np.testing.assert_array_equal(ids, arrays["input_ids"])
    positions, delta = model.model.get_rope_index(
        ids, video_grid_thw=grid, attention_mask=torch.ones_like(ids)
    )
    np.testing.assert_array_equal(positions, arrays["position_ids"])
    assert delta.tolist() == arrays["rope_delta"].tolist()
    with torch.no_grad():
        features = torch.cat(model.get_video_features(pixels, grid).pooler_output)
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=positions,
            pixel_values_videos=pixels,
            video_grid_thw=grid,
        ).logits[0]
    np.testing.assert_allclose(features[::7], arrays["visual_embeds_strided"], atol=2e-3)
    np.testing.assert_allclose(logits[-1], arrays["last_logits"], atol=2e-3)
    loglik = logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    np.testing.assert_allclose(loglik, arrays["loglik"], atol=2e-3)


@pytest.mark.golden
@pytest.mark.parametrize("case_id", cases("train_forward"))
def test_losses_and_gradients(golden, case_id):
    role = case_id.split(".")[-1]
    processor, model = load_trainable(golden, case_id, role)
    recorded = golden.json(f"model/{case_id}.json")["cases"]
    assert recorded
    singles: dict[int, dict] = {}
    for case in recorded:
        batch = batch_of(golden, processor, role, case["samples"], case.get("pos_clip"))
        assert list(batch["input_ids"].shape) == case["input_shape"]
        out, norms = step(model, batch)
        assert out.language_loss.item() == pytest.approx(case["lm_loss"], rel=1e-4)
        for name, key in (
            ("regression", "loss_reg"),
            ("classification", "loss_cls"),
            ("saliency", "loss_sal"),
        ):
            if case.get("aux"):
                mean = np.mean([aux[key] for aux in case["aux"]])
                assert getattr(out, f"{name}_loss").item() == pytest.approx(mean, rel=1e-4), name
        if len(case["samples"]) == 1:
            assert out.loss.item() == pytest.approx(case["loss"], rel=1e-4)
            assert_norms(norms, case["grad_norms"])
            singles[case["samples"][0]] = {
                n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
            }
        else:
            check_mean_over_samples(model, case, out, singles)


def check_mean_over_samples(model, case, out, singles):
    """D304: the original kept the smaller grounding loss of two; a batch is the mean of its samples."""
    if case.get("aux"):
        expected = case["lm_loss"] + np.mean([sum(aux.values()) for aux in case["aux"]])
        assert out.loss.item() == pytest.approx(expected, rel=1e-4)
    for name, param in model.named_parameters():
        if param.grad is not None:
            mean = torch.stack([singles[i][name] for i in case["samples"]]).mean(0)
            torch.testing.assert_close(param.grad, mean, rtol=1e-3, atol=1e-5)


@pytest.mark.golden
@pytest.mark.parametrize("case_id", [slow_if_untied(case_id) for case_id in cases("finetune")])
def test_short_finetune(golden, case_id):
    record = golden.json(f"model/{case_id}.json")
    processor, model = load_trainable(golden, case_id, "grounder")
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=record["lr"], weight_decay=record["weight_decay"])
    for number, recorded in enumerate(record["steps"]):
        losses = []
        for clip in pos_clips_to_try(golden, processor, recorded):
            batch = batch_of(golden, processor, "grounder", [recorded["sample"]], clip)
            with torch.no_grad():
                losses.append((model(**batch).loss.item(), batch))
        # The recording does not say which positive clip was drawn: it is the one with the recorded loss.
        loss, batch = min(losses, key=lambda pair: abs(pair[0] - recorded["loss"]))
        assert loss == pytest.approx(recorded["loss"], rel=1e-3 * (1 + number) * 1.5)
        optimizer.zero_grad()
        model(**batch).loss.backward()
        norm = nn.utils.clip_grad_norm_(params, record["clip"])
        assert norm.item() == pytest.approx(recorded["grad_norm"], rel=2e-2)
        optimizer.step()
    sums = {published(n): p.detach().double() for n, p in model.named_parameters() if p.requires_grad}
    assert set(record["final_param_sums"]) == set(sums)
    for name, (_, absolute) in record["final_param_sums"].items():
        assert sums[name].abs().sum().item() == pytest.approx(absolute, rel=1e-2, abs=1e-3), name


def pos_clips_to_try(golden, processor, recorded):
    if "pos_clip" in recorded:
        return [recorded["pos_clip"]]
    batch = batch_of(golden, processor, "grounder", [recorded["sample"]], None)
    return [[[i]] for i in batch["targets"][0].saliency[0].nonzero()[:, 0].tolist()]


@pytest.mark.golden
@pytest.mark.parametrize("case_id", cases("merged_logits"))
def test_merged_adapter_gives_the_same_logits(golden, case_id):
    arrays, inputs = golden.npz(f"model/{case_id}.npz"), golden.case("model", case_id)["inputs"]
    prompt = golden.npz(f"model/{inputs['prompt'].replace('.json', '.npz')}")
    info = golden.json(f"model/{inputs['prompt']}")
    loaded = load_model(inputs["checkpoint"], LoadSettings(), roles=["grounder"])
    video = info["messages"][0]["content"][0]
    frames = read_excerpt(Excerpt(path=video["video"], budget=budget_of(video))).frames
    pixels, grid = Encoder(loaded.processor).patches(frames)
    ids = torch.from_numpy(prompt["input_ids"]).long()
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.from_numpy(prompt["position_ids"]).long(),
        "pixel_values_videos": loaded.processor.normalized(pixels),
        "video_grid_thw": grid[None],
    }
    model = loaded.model.eval()
    with torch.no_grad():
        attached = model(**inputs).logits[0, -1]
        merged = merge_adapter(model).eval()(**inputs).logits[0, -1]
    by_name = {"attached": attached, "merged": merged}
    for name, expected in arrays.items():
        actual = by_name["merged" if "merge" in name else "attached"]
        np.testing.assert_allclose(actual, expected, atol=1e-3, err_msg=name)
