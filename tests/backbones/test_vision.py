"""The vision tower with frames in batches: transformers' weights, results and gradients, in fewer calls.

Covers `backbones/qwen2_vl/vision.py` and `backbones/qwen2_vl/model.py`.
"""

import random

import pytest
import torch
from helpers.pretended import WAIT, PretendedDevices
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from videomind.backbones.qwen2_vl.vision import FrameAttention, VisionTower, frame_runs

DEPTH = 2
VALUES = 3 * 2 * 14 * 14  # of a patch


def tower(kind: type, attention: str = "sdpa", dtype: torch.dtype = torch.float32):
    config = Qwen2VLVisionConfig(depth=DEPTH, embed_dim=32, num_heads=2, hidden_size=48)
    torch.manual_seed(0)
    return kind._from_config(config, attn_implementation=attention, dtype=dtype)


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches and grids of one to five videos, of which neighbours often have frames of one size."""
    rng = random.Random(seed)
    sizes = [(rng.choice((2, 4)), rng.choice((2, 6))) for _ in range(2)]
    grids = torch.tensor([[rng.randint(1, 9), *rng.choice(sizes)] for _ in range(rng.randint(1, 5))])
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(int(grids.prod(1).sum()), VALUES, generator=generator), grids


@pytest.mark.parametrize(
    ("grids", "runs"),
    [
        ([[1, 2, 2]], [(4, 1)]),
        ([[3, 2, 6], [4, 6, 2]], [(12, 7)]),  # as many patches in another shape
        ([[3, 2, 2], [1, 4, 4], [2, 2, 2]], [(4, 3), (16, 1), (4, 2)]),
    ],
)
def test_frames_of_a_size_that_follow_each_other_are_a_run(grids, runs):
    assert frame_runs(torch.tensor(grids)) == runs


def test_it_draws_the_weights_that_transformers_draws():
    ours, theirs = (tower(kind).state_dict() for kind in (VisionTower, Qwen2VisionTransformerPretrainedModel))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("seed", range(6))
def test_features_and_gradients_are_those_of_transformers(seed, attention):
    patches, grids = drawn(seed)
    ours, theirs = tower(VisionTower, attention), tower(Qwen2VisionTransformerPretrainedModel, attention)
    for model in (ours, theirs):
        model.features = model(patches, grid_thw=grids).pooler_output
        model.features.square().mean().backward()
    torch.testing.assert_close(ours.features, theirs.features, rtol=1e-5, atol=1e-6)
    expected = dict(theirs.named_parameters())
    for name, param in ours.named_parameters():
        torch.testing.assert_close(param.grad, expected[name].grad, rtol=1e-4, atol=1e-7, msg=name)


def test_half_precision_differs_by_its_rounding_alone():
    patches, grids = drawn(1)
    exact = tower(VisionTower)(patches, grid_thw=grids).pooler_output
    half = tower(VisionTower, dtype=torch.bfloat16)(patches.bfloat16(), grid_thw=grids).pooler_output
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=0.03 * exact.abs().max().item())


def test_a_layer_attends_once_for_all_frames_of_a_size():
    grids = torch.tensor([[40, 2, 2], [25, 2, 2], [5, 4, 2]])
    patches = torch.randn(int(grids.prod(1).sum()), VALUES)
    model = tower(VisionTower)
    with profile(activities=[ProfilerActivity.CPU]) as calls:
        model(patches, grid_thw=grids)
    counts = {event.key: event.count for event in calls.key_averages()}
    assert counts["aten::scaled_dot_product_attention"] == 2 * DEPTH
    assert not [name for name in counts if "conv3d" in name]


def test_layers_do_not_ask_the_device_for_lengths():
    """However deep the tower, the host waits as often."""
    patches, grids = drawn(3)
    waits = []
    for depth in (1, 4):
        model = VisionTower._from_config(Qwen2VLVisionConfig(depth=depth, embed_dim=32, num_heads=2))
        with PretendedDevices() as devices:
            model.to("cuda")
            inputs = patches.to("cuda"), grids.to("cuda")
            devices.clear()
            model(inputs[0], grid_thw=inputs[1])
            waits.append(devices.number(WAIT))
    assert waits[0] == waits[1]


def test_attention_alone_takes_what_transformers_gives_it():
    """Without runs, as a caller of the layer gives none, it attends as its parent does."""
    patches, grids = drawn(2)
    model = tower(VisionTower)
    layer = model.blocks[0].attn
    assert isinstance(layer, FrameAttention)
    hidden = model.patch_embed(patches)
    angles = torch.randn(len(hidden), 16, generator=torch.Generator().manual_seed(0))
    lengths = torch.repeat_interleave(grids[:, 1] * grids[:, 2], grids[:, 0])
    bounds = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    given = {"cu_seqlens": bounds, "position_embeddings": (angles.cos(), angles.sin())}
    torch.testing.assert_close(layer(hidden, runs=frame_runs(grids), **given), layer(hidden, **given))
