"""The head's blocks, points, decode and NMS against the original system's numbers."""

import re

import numpy as np
import pytest
import torch
from helpers.goldens import golden_root

from videomind.model.grounding_head import GroundingHead, HeadOutput, decode, make_points, nms
from videomind.model.layers import ConvHead, ConvPyramid, FusionLayer, LevelScale, SinePositions


@pytest.mark.golden
def test_blocks(golden):
    """Pyramid, heads, scale, fusion layer and positions, at every recorded length."""
    arrays = {k: torch.from_numpy(v) for k, v in golden.npz("units/blocks.npz").items()}
    dims = arrays["w.encoder.self_att.q.weight"].shape[0]
    modules = torch.nn.ModuleDict(
        {
            "pyramid": ConvPyramid(dims, (1, 2, 4, 8), "silu"),
            "class_head": ConvHead(dims, 1, "silu"),
            "coord_head": ConvHead(dims, 2, "silu"),
            "coef": LevelScale(4),
            "encoder": FusionLayer(dims, "silu"),
        }
    ).eval()
    modules.load_state_dict({k[2:]: v for k, v in arrays.items() if k.startswith("w.")})
    lengths = [int(m[1]) for k in arrays if (m := re.fullmatch(r"t(\d+)\.x", k))]
    assert lengths
    for t in lengths:
        x = arrays[f"t{t}.x"]
        with torch.no_grad():
            levels, masks = modules["pyramid"](x, torch.ones(x.shape[:2]))
            for i, (level, mask) in enumerate(zip(levels, masks, strict=True)):
                close(level, arrays[f"t{t}.pyr{i}"])
                close(mask, arrays[f"t{t}.msk{i}"])
                close(modules["class_head"](level), arrays[f"t{t}.cls{i}"])
                close(modules["coef"](modules["coord_head"](level).exp(), i), arrays[f"t{t}.crd{i}"])
            assert f"t{t}.pyr{len(levels)}" not in arrays
            close(modules["encoder"](x), arrays[f"t{t}.enc"])
            close(SinePositions(dims)(x).expand_as(x), arrays[f"t{t}.pe"])


def close(actual, expected, atol=1e-5):
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual.float(), expected.float(), atol=atol, rtol=0)


@pytest.mark.golden
def test_positions_of_width_256(golden):
    for name, expected in golden.npz("units/pos_enc_256.npz").items():
        positions = SinePositions(256)(torch.zeros(1, int(name[1:]), 256))[0, :, ::16]
        close(positions, torch.from_numpy(expected))


@pytest.mark.golden
def test_points(golden):
    for name, expected in golden.npz("units/points.npz").items():
        strides, buffer, t = re.fullmatch(r"strides([\d-]+)_buf(\d+)_t(\d+)", name).groups()
        points = make_points(int(t), tuple(map(int, strides.split("-"))), int(buffer))
        assert np.array_equal(points.numpy(), expected), name


@pytest.mark.golden
def test_nms(golden):
    arrays = golden.npz("units/nms.npz")
    for i in range(len(arrays) // 2):
        out = nms(torch.from_numpy(arrays[f"{i}_in"]))[:100].numpy()
        expected = arrays[f"{i}_out"]
        assert out.shape == expected.shape
        if i % 2 or i % 5 == 0:  # tied scores: only which scores stay is fixed
            np.testing.assert_array_equal(np.sort(out[:, 2]), np.sort(expected[:, 2]))
        else:
            kept = expected[:, 2] > 0
            np.testing.assert_array_equal(out[kept], expected[kept])


def test_too_many_clips_is_an_error():
    with pytest.raises(ValueError, match="1025 clips.*at most 1024"):
        make_points(1025)


def test_decode_places_boundaries_around_the_best_point():
    head = GroundingHead(16, "silu", dims=32).eval()
    with torch.no_grad():
        output = head(torch.randn(12, 16), torch.randn(1, 16))
    logits = torch.full_like(output.class_logits, -9.0)
    logits[-1, 0, 5] = 9.0
    offsets = torch.full_like(output.offsets, 0.1)
    offsets[-1, 0, 5] = torch.tensor([2.0, 3.0])
    output = HeadOutput(**{**vars(output), "class_logits": logits, "offsets": offsets})
    best = decode(output, 12)[0, 0]
    torch.testing.assert_close(best[:2], torch.tensor([3 / 12, 8 / 12]))


def test_padding_in_training_masks_points_beyond_the_video():
    head = GroundingHead(16, "silu", dims=32).eval()
    with torch.no_grad():
        output = head(torch.randn(5, 16), torch.randn(2, 16), min_clips=8)
    assert output.points.shape[0] == 15
    assert output.mask.tolist() == [1] * 5 + [0] * 3 + [1, 1, 1, 0] + [1, 1] + [1]
    assert output.clip_emb.shape == (3, 2, 5, 32)


def test_golden_root_is_a_tree():
    assert (golden_root() / "manifest.json").is_file()
