"""The head's blocks, points, decode and NMS against the original system's numbers."""

import math
import re

import numpy as np
import pytest
import torch
from helpers.goldens import golden_root
from torch import nn

from videomind.model.grounding_head import (
    MAX_CANDIDATES,
    STRIDES,
    GroundingHead,
    HeadOutput,
    _point_mask,
    decode,
    make_points,
    nms,
)
from videomind.model.layers import ConvHead, ConvPyramid, FusionLayer, LevelScale, SinePositions
from videomind.spans import to_seconds


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
            levels = modules["pyramid"](x)
            masks = _point_mask(make_points(t), [t] * len(x), 1).split([x.size(1) for x in levels], dim=1)
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
        output = head([torch.randn(12, 16)], [torch.randn(1, 16)])
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
        output = head([torch.randn(5, 16)], [torch.randn(2, 16)], min_clips=8)
    assert output.points.shape[0] == 15
    assert output.mask.tolist() == [[1] * 5 + [0] * 3 + [1, 1, 1, 0] + [1, 1] + [1]] * 2
    assert output.clip_emb.shape == (3, 2, 5, 32)


@pytest.mark.parametrize("num_clips", range(1, 34))
def test_a_level_exists_from_its_stride_on(num_clips):
    """And its last point is the last that has a whole stride of clips."""
    points = make_points(num_clips)
    by_stride = {s: points[points[:, 3] == s, 0].tolist() for s in STRIDES}
    for stride, positions in by_stride.items():
        assert positions == [i * stride for i in range(num_clips // stride)]
    assert (len(by_stride[max(STRIDES)]) > 0) == (num_clips >= max(STRIDES))


def test_ranges_of_neighbouring_levels_meet():
    """A distance of exactly 2, 4 or 8 clips belongs to both levels, none to no level."""
    points = make_points(16)
    ranges = [points[points[:, 3] == s][0, 1:3].tolist() for s in STRIDES]
    assert ranges == [[0, 2], [2, 4], [4, 8], [8, float("inf")]]


def test_the_longest_video_has_points_up_to_its_end():
    assert make_points(1024)[:1024, 0].tolist() == list(range(1024))


@pytest.mark.parametrize("num_clips", range(1, 18))
def test_a_level_is_masked_from_the_first_point_without_a_real_clip(num_clips):
    padded = max(num_clips, max(STRIDES))
    points = make_points(padded)
    mask = _point_mask(points, [num_clips], max(STRIDES))[0]
    for stride in STRIDES:
        expected = [float(i * stride < num_clips) for i in range(padded // stride)]
        assert mask[points[:, 3] == stride].tolist() == expected


@pytest.mark.parametrize("num_clips", range(1, 18))
def test_without_padding_levels_longer_than_the_video_are_left_out(num_clips):
    levels = ConvPyramid(8, STRIDES, "silu")(torch.randn(1, num_clips, 8))
    assert [level.size(1) for level in levels] == [num_clips // s for s in STRIDES if s <= num_clips]
    assert _point_mask(make_points(num_clips), [num_clips], 1).all()


@pytest.mark.parametrize(
    ("end", "threshold", "suppressed"),
    [(3.0, 0.75, True), (2.0, 0.5, True), (1.0, 0.25, True), (3.0, 0.7500001, False), (2.999, 0.75, False)],
)
def test_an_overlap_of_exactly_the_threshold_suppresses(end, threshold, suppressed):
    """[0, end] against [0, 4] is an IoU of end / 4."""
    out = nms(torch.tensor([[0.0, 4.0, 0.9], [0.0, end, 0.8]]), threshold)
    assert out[:, 2].tolist() == pytest.approx([0.9, 0.0 if suppressed else 0.8])


def test_candidates_without_length_or_overlap_stay():
    """0/0 is no overlap, and spans that only touch have none."""
    rows = torch.tensor([[2.0, 2.0, 0.9], [2.0, 2.0, 0.8], [0.0, 1.0, 0.7], [1.0, 2.0, 0.6]])
    assert torch.equal(nms(rows, 0.01), rows)


def test_a_suppressed_candidate_suppresses_nothing():
    rows = torch.tensor([[0.0, 4.0, 0.9], [1.0, 4.0, 0.8], [1.0, 3.25, 0.7]])
    assert nms(rows)[:, 2].tolist() == pytest.approx([0.9, 0.7, 0.0])


def decoded(num_clips: int, point: int, offsets: list[float]) -> torch.Tensor:
    """All candidates where one point has a good score and these distances."""
    points = make_points(num_clips)
    logits, distances = torch.full((1, 1, len(points)), -9.0), torch.zeros(1, 1, len(points), 2)
    logits[0, 0, point], distances[0, 0, point] = 9.0, torch.tensor(offsets)
    empty = torch.zeros(1, 1, num_clips, 4), torch.zeros(1, 1, 4)
    output = HeadOutput(
        class_logits=logits, offsets=distances, points=points, mask=torch.ones(1, len(points)),
        clip_emb=empty[0], query_emb=empty[1], num_clips=(num_clips,), num_queries=(1,),
    )  # fmt: skip
    return decode(output, num_clips)[0]


@pytest.mark.parametrize(
    ("point", "offsets", "span"),
    [
        (0, [0.0, 8.0], [0.0, 20.0]),  # exactly the video
        (0, [3.0, 99.0], [0.0, 20.0]),  # beyond both ends
        (7, [7.0, 1.0], [0.0, 20.0]),
        (7, [0.0, 1.0], [17.5, 20.0]),  # the last clip
        (8 + 3, [0.5, 1.0], [12.5, 20.0]),  # at 6, in strides of 2
        (4, [0.01, 0.01], [10.0, 10.0]),  # shorter than half a unit: one boundary
    ],
)
def test_boundaries_are_clamped_to_the_video_in_seconds(point, offsets, span):
    """`decode` itself leaves them as predicted."""
    best = decoded(8, point, offsets)[:1, :2]
    assert to_seconds(best, duration_s=20.0, unit_s=0.5).tolist() == [span]


def test_predictions_beyond_the_video_are_not_clamped_before_suppression():
    best = decoded(8, 0, [3.0, 99.0])[0, :2]
    assert best.tolist() == pytest.approx([-3 / 8, 99 / 8])


@pytest.mark.parametrize("num_clips", [1, 52, 53, 54, 55, 200])
def test_at_most_a_hundred_candidates_stay(num_clips):
    """54 clips have 54 + 27 + 13 + 6 = 100 points."""
    assert len(decoded(num_clips, 0, [0.0, 1.0])) == min(len(make_points(num_clips)), MAX_CANDIDATES)


def test_golden_root_is_a_tree():
    assert (golden_root() / "manifest.json").is_file()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_distances_are_finite_in_every_precision(dtype):
    """And as they are without bounds wherever those are finite."""
    head = GroundingHead(16, "silu").to(dtype)
    top = math.log(torch.finfo(dtype).max)
    raw = torch.tensor([-5.0, 0.0, 3.0, top - 1, top - 0.02, top + 0.02, top + 1, 1e4], dtype=dtype)
    raw.requires_grad_(True)
    for scale in (1.0, 1.5):
        nn.init.constant_(head.coef.scale, scale)
        found, plain = head._distances(raw, 0), raw.exp() * head.coef.scale[0]
        assert found.isfinite().all() and torch.equal(found[plain.isfinite()], plain[plain.isfinite()])
        (gradient,) = torch.autograd.grad(0.0 * found.sum(), raw)
        assert gradient.isfinite().all()
