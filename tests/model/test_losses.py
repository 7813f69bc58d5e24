"""Targets and losses against the original's numbers, gradients included."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from videomind.model.grounding_head import STRIDES, GroundingHead, HeadOutput, make_points
from videomind.model.losses import (
    HeadTargets,
    LossWeights,
    NoPositiveError,
    assign,
    grounding_loss,
    has_positive,
    regression_loss,
    saliency_loss,
)

PARTS = {"loss_cls": "classification", "loss_reg": "regression", "loss_sal": "saliency"}


def targets_of(get) -> HeadTargets:
    """The targets of a recorded case."""
    return HeadTargets(
        spans=(get("spans"),), saliency=get("saliency"), pos_clip=get("pos_clip").long().flatten()
    )


def loss_of_case(arrays, i):
    """Rebuild a recorded case: leaves that need gradients, and the loss object."""
    get = lambda name: torch.from_numpy(arrays[f"{i}_{name}"])  # noqa: E731
    t = int(arrays[f"{i}_t"])
    leaves = {n: get(n).requires_grad_() for n in ("video_emb", "query_emb", "out_class", "out_coord")}
    padded = max(8, t)
    mask = [F.max_pool1d((torch.arange(padded) < t).float()[None], s, s)[0] for s in (1, 2, 4, 8)]
    output = HeadOutput(
        class_logits=leaves["out_class"].squeeze(-1)[:, None],
        offsets=leaves["out_coord"][:, None],
        points=make_points(padded),
        mask=torch.cat(mask)[None],
        clip_emb=leaves["video_emb"][:, None],
        query_emb=leaves["query_emb"],
        num_clips=(t,),
        num_queries=(1,),
    )
    compute = lambda: grounding_loss(  # noqa: E731
        output,
        [targets_of(get)],
        weights=LossWeights(),
    )
    return leaves, output, get, compute


@pytest.mark.golden
def test_bundle_loss(golden):
    arrays, rows = golden.npz("units/bundle_loss.npz"), golden.json("units/bundle_loss.json")
    assert rows
    for row in rows:
        leaves, output, get, compute = loss_of_case(arrays, row["i"])
        if "error" in row:  # the original crashed the step; here it is an error of its own kind
            with pytest.raises(NoPositiveError):
                compute()
            continue
        classes, offsets = assign(output.points, get("spans") * leaves["video_emb"].size(1))
        torch.testing.assert_close(classes[None], get("cls_tgt").float())
        positive = classes.bool()
        torch.testing.assert_close(offsets[positive], get("reg_tgt")[0][positive], atol=1e-5, rtol=1e-5)
        loss = compute()
        for name, part in PARTS.items():
            assert getattr(loss, part).item() == pytest.approx(row["losses"][name], rel=1e-5, abs=1e-7)
        loss.total.backward()
        for leaf, name in zip(leaves.values(), ("g_video", "g_query", "g_class", "g_coord"), strict=True):
            np.testing.assert_allclose(leaf.grad, arrays[f"{row['i']}_{name}"], atol=1e-5)


def literal_targets(num_clips: int, moments: list[list[float]]) -> tuple[list[int], dict[int, list[float]]]:
    """The rule word by word: each point's class, and what each positive point regresses."""
    classes, offsets = [], {}
    ranges = {1: (0, 2), 2: (2, 4), 4: (4, 8), 8: (8, float("inf"))}
    for stride in STRIDES:
        for i in range(num_clips // stride):
            point, (low, high), shortest = i * stride, ranges[stride], float("inf")
            for start, end in moments:
                in_moment = start <= point <= end
                near_centre = abs(point - (start + end) / 2) <= 1.5 * stride
                in_range = low <= max(point - start, end - point) <= high
                if in_moment and near_centre and in_range and end - start < shortest:
                    shortest = end - start
                    offsets[len(classes)] = [(point - start) / stride, (end - point) / stride]
            classes.append(int(len(classes) in offsets))
    return classes, offsets


def one_moment_cases(num_clips: int) -> list[list[list[float]]]:
    """The whole video, every clip, and every moment between two points of a level."""
    whole, clips = [[[0.0, float(num_clips)]]], [[[float(i), i + 1.0]] for i in range(num_clips)]
    on_levels = [
        [[float(start), float(end)]]
        for stride in STRIDES
        for start in range(0, num_clips, stride)
        for end in range(start + stride, num_clips + 1, stride)
    ]
    return whole + clips + on_levels


def many_moments_cases(num_clips: int, rng: random.Random, grid: float) -> list[list[list[float]]]:
    """Two to five moments that overlap and touch, on a grid of `grid` clips."""
    steps = int(num_clips / grid)
    return [
        [sorted(grid * t for t in rng.sample(range(steps + 1), 2)) for _ in range(rng.randint(2, 5))]
        for _ in range(60)
    ]


def assert_literal(num_clips: int, moments: list[list[float]]) -> None:
    classes, offsets = assign(make_points(num_clips), torch.tensor(moments))
    expected, distances = literal_targets(num_clips, moments)
    assert classes.tolist() == expected, (num_clips, moments)
    for i, pair in distances.items():
        assert offsets[i].tolist() == pytest.approx(pair, abs=1e-4), (num_clips, moments, i)


@pytest.mark.parametrize("num_clips", [1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 40])
def test_targets_of_one_moment_on_the_grid(num_clips):
    """Every boundary lies exactly on a point of some level; all of QVHighlights is so."""
    for moments in one_moment_cases(num_clips):
        assert_literal(num_clips, moments)


@pytest.mark.parametrize("grid", [1.0, 0.5, 2.0, 1 / 64])
@pytest.mark.parametrize("num_clips", [8, 13, 32, 75])
def test_targets_of_several_moments(num_clips, grid):
    """Also of equal length, where the first one is learned."""
    for moments in many_moments_cases(num_clips, random.Random(f"{num_clips} {grid}"), grid):
        assert_literal(num_clips, moments)


@pytest.mark.parametrize("seed", range(8))
def test_targets_of_random_moments(seed):
    rng = random.Random(seed)
    num_clips = rng.randint(1, 150)
    for _ in range(40):
        drawn = torch.tensor([[rng.random(), rng.random()] for _ in range(rng.randint(1, 4))])
        assert_literal(num_clips, (drawn.sort(dim=1).values * num_clips).tolist())


def test_of_equally_short_moments_the_first_is_learned():
    for moments in ([[3.0, 6.0], [4.0, 7.0]], [[4.0, 7.0], [3.0, 6.0]]):
        classes, offsets = assign(make_points(8), torch.tensor(moments))
        assert classes[5] == 1
        assert offsets[5].tolist() == [5 - moments[0][0], moments[0][1] - 5]


def test_a_moment_at_the_very_start_or_end_has_its_points():
    """A boundary is inside: without that the point at 0 would learn nothing."""
    classes, _ = assign(make_points(16), torch.tensor([[0.0, 1.0], [15.0, 16.0]]))
    assert classes[:16].nonzero()[:, 0].tolist() == [0, 1, 15]


def test_every_clip_of_every_length_can_be_learned():
    """One clip's moment, in a video shorter and longer than the pyramid needs."""
    for num_clips in range(1, 40):
        for start in range(num_clips):
            assert has_positive(num_clips, torch.tensor([[float(start), start + 1.0]]))


@pytest.mark.parametrize("num_clips", [1, 3, 5, 7])
def test_a_point_on_padding_does_not_make_a_sample_learnable(num_clips):
    """The end of a short video is a point of the padded pyramid, but training masks it."""
    inner = num_clips - 0.25
    assert not has_positive(num_clips, torch.tensor([[inner, float(num_clips)]]))
    head = GroundingHead(16, "silu", dims=32).eval()
    output = head([torch.randn(num_clips, 16)], [torch.randn(1, 16)], min_clips=max(STRIDES))
    classes, offsets = assign(output.points, torch.tensor([[inner, float(num_clips)]]))
    assert classes.any()
    with pytest.raises(NoPositiveError):
        regression_loss(output, classes[None], offsets[None])


@pytest.mark.parametrize("seed", range(4))
def test_what_can_be_learned_is_what_the_loss_takes(seed):
    rng = random.Random(seed)
    head = GroundingHead(16, "silu", dims=32).eval()
    outcomes = set()
    for _ in range(40):
        num_clips = rng.randint(1, 12)
        start = rng.choice((rng.uniform(0, num_clips), float(rng.randint(0, num_clips))))
        moment = torch.tensor([[start, min(start + rng.choice((0.2, 0.5, 1.0)), num_clips)]])
        output = head([torch.randn(num_clips, 16)], [torch.randn(1, 16)], min_clips=max(STRIDES))
        classes, offsets = (target[None] for target in assign(output.points, moment))
        learnable = has_positive(num_clips, moment)
        outcomes.add(learnable)
        if learnable:
            assert regression_loss(output, classes, offsets).isfinite()
        else:
            with pytest.raises(NoPositiveError):
                regression_loss(output, classes, offsets)
    assert outcomes == {True, False}


def output_of(clip_emb: torch.Tensor, query_emb: torch.Tensor) -> HeadOutput:
    """A head's output of one layer and query in which only the embeddings count."""
    points = make_points(8)
    return HeadOutput(
        class_logits=torch.zeros(1, 1, len(points)),
        offsets=torch.ones(1, 1, len(points), 2),
        points=points,
        mask=torch.ones(1, len(points)),
        clip_emb=clip_emb[None, None],
        query_emb=query_emb[None, None],
        num_clips=(len(clip_emb),),
        num_queries=(1,),
    )


@pytest.mark.parametrize("chosen", [1, 2, 4])
def test_clips_as_salient_as_the_chosen_one_are_its_rivals(chosen):
    """And only more salient ones are not."""
    torch.manual_seed(0)
    clips, query = torch.randn(5, 6), torch.randn(6)
    saliency = torch.tensor([0.0, 0.5, 1.0, 0.5, 1.0])
    similarity = F.cosine_similarity(clips, query[None], dim=-1) / 0.07
    rivals = [i for i in range(5) if saliency[i] <= saliency[chosen]]
    assert len(rivals) == (5 if saliency[chosen] == 1 else 3)
    expected = similarity[rivals].exp().sum().log() - similarity[chosen]
    loss = saliency_loss(output_of(clips, query), saliency[None], torch.tensor([chosen]))
    torch.testing.assert_close(loss, expected[None])


def test_only_positive_points_regress_and_a_query_without_any_adds_nothing():
    output = output_of(torch.zeros(8, 6), torch.ones(6))
    output = replace(output, offsets=output.offsets.expand(1, 2, -1, 2), num_queries=(2,))
    classes = torch.zeros(2, len(output.points))
    classes[0, [2, 5]] = 1
    offsets = torch.full((2, len(output.points), 2), 9.0)
    offsets[0, 2], offsets[0, 5] = torch.tensor([1.5, 1.0]), torch.tensor([1.0, 3.0])
    assert regression_loss(output, classes, offsets).item() == pytest.approx((0.5 + 2.0) / 4)


def test_shortest_of_overlapping_moments_wins():
    points = make_points(16)
    classes, offsets = assign(points, torch.tensor([[2.0, 12.0], [5.0, 8.0]]))
    assert classes[6] == 1
    assert offsets[6].tolist() == [1.0, 2.0]


def test_weights_scale_their_part_only():
    arrays = {
        "0_t": np.array(8),
        "0_spans": np.array([[0.2, 0.7]], np.float32),
        "0_saliency": np.array([[0, 0, 1, 1, 1, 0, 0, 0]], np.float32),
        "0_pos_clip": np.array([[3]]),
    }
    rng = np.random.default_rng(0)
    shapes = {
        "video_emb": (3, 8, 8),
        "query_emb": (3, 1, 8),
        "out_class": (3, 15, 1),
        "out_coord": (3, 15, 2),
    }
    arrays |= {f"0_{k}": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    _, output, get, compute = loss_of_case(arrays, 0)
    base = compute()
    heavy = grounding_loss(output, [targets_of(get)], weights=LossWeights(saliency=1.0))
    torch.testing.assert_close(heavy.saliency, base.saliency * 20)
    torch.testing.assert_close(heavy.regression, base.regression)
