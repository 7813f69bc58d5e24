"""A batch of videos in one call of the head: each gets the losses and gradients that it gets alone."""

import random
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from videomind.model.grounding_head import STRIDES, GroundingHead, HeadOutput
from videomind.model.losses import HeadTargets, LossWeights, NoPositiveError, grounding_loss, has_positive

HIDDEN, DIMS = 24, 32
# Shares of the largest number of a tensor. Gradients lose some digits of float32 in summing.
LOSS_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
GRADIENT_TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}
PARTS = ("classification", "regression", "saliency")
Video = tuple[Tensor, Tensor, HeadTargets]  # states of its clips and queries, and what is learned


def draw_targets(rng: random.Random, num_clips: int, num_queries: int) -> HeadTargets:
    """One to four moments for each query, at least one of a whole clip."""
    moments = []
    for _ in range(num_queries):
        start = rng.randrange(num_clips)
        learnable = [[float(start), float(rng.randint(start + 1, num_clips))]]
        more = [sorted(rng.uniform(0, num_clips) for _ in range(2)) for _ in range(rng.randrange(4))]
        moments.append(torch.tensor(learnable + more))
        if not has_positive(num_clips, moments[-1]):
            moments[-1] = torch.tensor([[float(start), start + 1.0]])
    saliency = torch.tensor([[rng.choice((0.0, 0.5, 1.0)) for _ in range(num_clips)] for _ in moments])
    chosen = torch.tensor([rng.randrange(num_clips) for _ in moments])
    return HeadTargets(spans=tuple(m / num_clips for m in moments), saliency=saliency, pos_clip=chosen)


def draw_videos(seed: int, dtype: torch.dtype, lengths: Sequence[int]) -> list[Video]:
    rng, videos = random.Random(f"{seed} {lengths}"), []
    torch.manual_seed(seed)
    for num_clips in lengths:
        num_queries = rng.choice((1, 1, 2, 3))
        states = (torch.randn(n, HIDDEN, dtype=dtype).requires_grad_() for n in (num_clips, num_queries))
        videos.append((*states, draw_targets(rng, num_clips, num_queries)))
    return videos


def draw_lengths(seed: int) -> list[int]:
    """Of 1 to 8 videos, short ones among them."""
    rng = random.Random(seed)
    return [rng.choice((1, rng.randint(2, 7), 8, rng.randint(9, 70))) for _ in range(1 + seed % 8)]


def make_head(dtype: torch.dtype) -> GroundingHead:
    """One in training, none of whose branches is left out, every parameter of which is random."""
    torch.manual_seed(5)
    head = GroundingHead(HIDDEN, "silu", dims=DIMS).to(dtype).train()
    head.set_droppath(0.0)
    for param in head.parameters():  # a bias of zero would hide what padding does behind a convolution
        param.data += 0.1 * torch.randn_like(param)
    return head


def run(head: GroundingHead, videos: list[Video]) -> tuple[list[Tensor], list[Tensor]]:
    """The losses (3, V), each video's a mean over its queries; the gradients of their mean for everything."""
    clips, queries, targets = zip(*videos, strict=True)
    output = head(clips, queries, min_clips=max(STRIDES))
    loss = grounding_loss(output, targets, weights=LossWeights(saliency=1.0))
    losses = [getattr(loss, part) / torch.tensor(output.num_queries) for part in PARTS]
    total = torch.stack(losses).sum(0).mean()
    return losses, list(torch.autograd.grad(total, [*head.parameters(), *clips, *queries]))


def assert_close(found: Tensor, expected: Tensor, tolerance: dict[torch.dtype, float], least: float) -> None:
    """Agreement to a share of the largest number, or of `least`: some gradients are nothing but rounding."""
    assert found.shape == expected.shape
    largest = max(expected.abs().max().item(), least)
    assert (found - expected).abs().max().item() <= tolerance[found.dtype] * largest


def check_agreement(head: GroundingHead, videos: list[Video]) -> None:
    losses, gradients = run(head, videos)
    alone = [run(head, [video]) for video in videos]
    for i, found in enumerate(losses):
        assert_close(found, torch.cat([single[i] for single, _ in alone]), LOSS_TOLERANCE, 1.0)
    num_params, num_videos = len(list(head.parameters())), len(videos)
    expected = [torch.stack(parts).mean(0) for parts in zip(*(g[:num_params] for _, g in alone), strict=True)]
    for place in (num_params, num_params + 1):  # clips, then queries
        expected += [single[place] / num_videos for _, single in alone]
    # A softmax does not see the bias of its keys: that has a gradient of zero, and of rounding.
    least = 0.1 * max(gradient.abs().max().item() for gradient in expected[:num_params])
    for found, mean in zip(gradients, expected, strict=True):
        assert_close(found, mean, GRADIENT_TOLERANCE, least if found.dim() == 1 else 0.0)


@pytest.mark.parametrize("dtype", LOSS_TOLERANCE, ids=str)
@pytest.mark.parametrize("seed", range(24))
def test_random_batches(seed, dtype):
    check_agreement(make_head(dtype), draw_videos(seed, dtype, draw_lengths(seed)))


@pytest.mark.parametrize(
    "lengths", [(1, 1), (1, 2), (1, 40), (5, 8), (7, 9, 8), (9, 16), (15, 17), (33, 33), (12, 64, 3)]
)
def test_lengths_around_the_levels(lengths):
    check_agreement(make_head(torch.float64), draw_videos(0, torch.float64, lengths))


def rows_of(output: HeadOutput, number: int) -> HeadOutput:
    """The part of an output that is one video's, on its own points."""
    first, num_clips = sum(output.num_queries[:number]), output.num_clips[number]
    rows = slice(first, first + output.num_queries[number])
    own = output.points[:, 0] + output.points[:, 3] <= num_clips
    return HeadOutput(
        class_logits=output.class_logits[:, rows, own],
        offsets=output.offsets[:, rows, own],
        points=output.points[own],
        mask=output.mask[rows, own],
        clip_emb=output.clip_emb[:, rows, :num_clips],
        query_emb=output.query_emb[:, rows],
        num_clips=(num_clips,),
        num_queries=output.num_queries[number : number + 1],
    )


@pytest.mark.parametrize("seed", range(8))
def test_predictions_of_a_batch_without_padding_to_a_length(seed):
    """Levels that a video lacks count nothing, and nothing of a longer video is seen."""
    head, videos = make_head(torch.float64).eval(), draw_videos(seed, torch.float64, draw_lengths(seed + 7))
    clips, queries, _ = zip(*videos, strict=True)
    batch = head(clips, queries)
    for number in range(len(videos)):
        single, found = head(clips[number : number + 1], queries[number : number + 1]), rows_of(batch, number)
        assert batch.mask.sum(1)[sum(batch.num_queries[:number])] == single.mask[0].sum()
        for name, expected in vars(single).items():
            if isinstance(expected, Tensor):
                torch.testing.assert_close(getattr(found, name), expected, rtol=1e-12, atol=1e-12)


def test_clips_behind_the_end_are_zero():
    head = make_head(torch.float32)
    clips, queries, _ = zip(*draw_videos(3, torch.float32, (4, 11)), strict=True)
    emb = head(clips, queries).clip_emb
    rows = len(queries[0])
    assert not emb[:, :rows, 4:].any() and emb[:, :rows, :4].all() and emb[:, rows:].all()


def test_a_row_of_a_batch_loses_branches_by_itself():
    """As rows of one video do: the draws of stochastic depth are each row's."""
    head = make_head(torch.float32)
    head.set_droppath(0.5)
    clips, query = torch.randn(9, HIDDEN), torch.randn(1, HIDDEN)
    torch.manual_seed(0)
    emb = head([clips] * 8, [query] * 8).query_emb[-1]
    assert len({tuple(row.tolist()) for row in emb}) > 2


def test_one_video_of_a_batch_without_a_positive_point_is_an_error():
    head = make_head(torch.float32)
    clips, queries, targets = zip(*draw_videos(1, torch.float32, (5, 20)), strict=True)
    behind = torch.tensor([[4.75, 5.0]]) / 5
    hopeless = HeadTargets(
        spans=(behind,) * len(queries[0]), saliency=targets[0].saliency, pos_clip=targets[0].pos_clip
    )
    output = head(clips, queries, min_clips=max(STRIDES))
    assert grounding_loss(output, targets, weights=LossWeights()).total.shape == (2,)
    with pytest.raises(NoPositiveError):
        grounding_loss(output, [hopeless, targets[1]], weights=LossWeights())


def test_points_made_for_a_prediction_serve_training():
    """They are kept per length; what inference mode made could not be learned with."""
    head, (clips, query, targets) = make_head(torch.float32), draw_videos(0, torch.float32, (37,))[0]
    with torch.inference_mode():
        first = head([clips], [query], min_clips=max(STRIDES)).points
    output = head([clips], [query], min_clips=max(STRIDES))
    assert output.points is first and not first.is_inference()
    grounding_loss(output, [targets], weights=LossWeights()).total.backward()


@pytest.mark.parametrize("num_clips", [1, 5, 7])
def test_convolutions_of_a_short_video_see_its_padding(num_clips):
    """As in published training: clips of zero up to 8, which norms and biases make something else of."""
    head = make_head(torch.float64)
    (clips, queries, _), longer = draw_videos(0, torch.float64, (num_clips, 30))
    for others in ([], [longer]):
        output = head([clips, *(v[0] for v in others)], [queries, *(v[1] for v in others)], min_clips=8)
        rows = len(queries)
        emb = output.clip_emb[:, :rows, :num_clips].flatten(0, 1)
        levels = head.pyramid(F.pad(emb, (0, 0, 0, 8 - num_clips)))
        expected = torch.cat([head.class_head(level) for level in levels], dim=1)[..., 0]
        own = output.points[:, 0] + output.points[:, 3] <= 8
        found = output.class_logits[:, :rows, own].flatten(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
