"""The grounding head: from clip states and a query state to scored boundaries (arXiv 2503.13444, sec. 3).

Shapes: V videos, T clips (of the longest), Q queries of all videos (one per `<|reg|>` token), D hidden size
of the language model, C head width, F fusion layers, K pyramid levels, P points over all levels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from videomind.device import uploaded
from videomind.faults import RunError
from videomind.model.layers import (
    ConvHead,
    ConvPyramid,
    FusionLayer,
    LevelScale,
    SinePositions,
    TypeEmbedding,
)
from videomind.spans import iou

STRIDES = (1, 2, 4, 8)
MAX_CLIPS = 1024
NMS_THRESHOLD = 0.75
MAX_CANDIDATES = 100


@dataclass(frozen=True, kw_only=True)
class HeadOutput:
    """What the head computes for a batch of videos, for every fusion layer.

    Attributes:
        class_logits: (F, Q, P).
        offsets: (F, Q, P, 2), distances to start and end in units of the point's stride, positive.
        points: (P, 4): position, smallest and largest distance it regresses, stride (all in clips).
        mask: (Q, P), 1 where the row's video has the point, and real clips there; elsewhere the row's numbers
            mean nothing.
        clip_emb: (F, Q, T, C), zero behind a video's end; query_emb: (F, Q, C), for the saliency.
        num_clips: of each video.
        num_queries: of each video, whose rows follow one another.
    """

    class_logits: Tensor
    offsets: Tensor
    points: Tensor
    mask: Tensor
    clip_emb: Tensor
    query_emb: Tensor
    num_clips: tuple[int, ...]
    num_queries: tuple[int, ...]


def check_frames(max_frames: int, frames_per_step: int) -> None:
    """Refuse a budget whose longest videos the head could not take.

    Args:
        max_frames: of an excerpt (--max_frames).
        frames_per_step: of the backbone.

    Raises:
        RunError: it has more clips than the head has places.
    """
    if max_frames > MAX_CLIPS * frames_per_step:
        raise RunError(
            f"--max_frames {max_frames} is too much for the grounding head: it takes {MAX_CLIPS} clips of "
            f"{frames_per_step} frames, which is {MAX_CLIPS * frames_per_step}"
        )


def make_points(num_clips: int, strides: tuple[int, ...] = STRIDES, max_clips: int = MAX_CLIPS) -> Tensor:
    """Lay the anchor points of all levels (ActionFormer, arXiv 2202.07925).

    Args:
        num_clips: T.
        strides: of the levels, in clips.
        max_clips: the longest video, in clips.

    Returns:
        (P, 4): position, lower and upper bound of the distance it regresses, stride (all in clips).

    Raises:
        ValueError: T exceeds max_clips.
    """
    if num_clips > max_clips:
        raise ValueError(f"{num_clips} clips are too many for the grounding head: at most {max_clips}")
    points, lower = [], 0.0
    for stride in strides:
        # Ranges [0, 2], [2, 4], [4, 8], [8, inf) clips: each level answers for twice the size of the one
        # before, the last one for all that is longer.
        upper = 2.0 * stride if stride != strides[-1] else float("inf")
        if num_clips >= stride:
            position = torch.arange(num_clips // stride, dtype=torch.float32) * stride
            bounds = torch.tensor([lower, upper, float(stride)]).expand(len(position), 3)
            points.append(torch.cat((position[:, None], bounds), dim=1))
        lower = upper
    return torch.cat(points)


@cache
def _points_on(device: torch.device, num_clips: int) -> Tensor:
    """Make the points of a length once; no more than 30 kB each."""
    with torch.inference_mode(False):  # made in a prediction, they may serve a training later
        return uploaded(make_points(num_clips), device)


@cache
def largest_exponent(dtype: torch.dtype) -> float:
    """Find the largest number of a type whose exponential is a finite number of that type."""
    bound = torch.tensor(math.log(torch.finfo(dtype).max), dtype=dtype)
    while not bound.exp().isfinite():
        bound = torch.nextafter(bound, torch.zeros_like(bound))
    return bound.item()


class GroundingHead(nn.Module):
    """Fuses clips with a query and predicts boundaries on a temporal pyramid."""

    def __init__(self, hidden_size: int, activation: str, dims: int = 256, num_layers: int = 3):
        super().__init__()
        self.vis_proj = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, dims))
        self.reg_proj = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, dims))
        self.vis_emb = TypeEmbedding(dims)
        self.reg_emb = TypeEmbedding(dims)
        self.vis_pos = SinePositions(dims)
        self.vis_fuse = nn.ModuleList(FusionLayer(dims, activation) for _ in range(num_layers))
        self.vis_norm = nn.LayerNorm(dims)
        self.pyramid = ConvPyramid(dims, STRIDES, activation)
        self.class_head = ConvHead(dims, 1, activation)
        self.coord_head = ConvHead(dims, 2, activation)
        self.coef = LevelScale(len(STRIDES))

    def forward(
        self, clip_states: Sequence[Tensor], query_states: Sequence[Tensor], *, min_clips: int = 1
    ) -> HeadOutput:
        """Run the head on videos of any lengths; each gets the numbers that it would get alone.

        Args:
            clip_states: of each video (T, D), the mean state of each temporal step.
            query_states: of each video (Q, D), the state that predicts each `<|reg|>`.
            min_clips: clips are zero-padded to this many before the pyramid (8 in training, so that
                every level exists; none at inference).
        """
        num_clips, num_queries = (tuple(map(len, states)) for states in (clip_states, query_states))
        lengths = [length for length, count in zip(num_clips, num_queries, strict=True) for _ in range(count)]
        dtype = self.vis_proj[0].weight.dtype
        # 1. Project both and mark what they are; only clips have a place in time.
        projected = self.vis_proj(torch.cat(list(clip_states)).to(dtype)).split(num_clips)
        clips = self.vis_emb(pad_sequence(projected, batch_first=True))  # (V, T, C)
        clips = clips + self.vis_pos(clips, mask=_mask(num_clips, clips)).to(clips.dtype)
        queries = self.reg_emb(self.reg_proj(torch.cat(list(query_states)).to(dtype))[:, None])  # (Q, 1, C)
        # 2. Each query sees its video's clips by itself: the queries are rows of a batch.
        videos = zip(clips.split(1), num_queries, strict=True)
        clips = torch.cat([video.expand(count, -1, -1) for video, count in videos])  # (Q, T, C)
        clip_emb, query_emb = self._fuse(clips, queries, _mask(lengths, clips))
        # 3. Training supervises every fusion layer (K302), so all of them go through pyramid and heads.
        levels, exist = self._pyramid(clip_emb, lengths, min_clips)
        pairs = list(zip(levels, exist, strict=True))
        class_logits = [self.class_head(*pair) for pair in pairs]  # K of (F * Q, P, 1)
        offsets = [self._distances(self.coord_head(*pair), i) for i, pair in enumerate(pairs)]
        num_rows = clip_emb.shape[:2]
        points = _points_on(clips.device, max(min_clips, *num_clips))
        return HeadOutput(
            class_logits=torch.cat(class_logits, dim=1).squeeze(-1).unflatten(0, num_rows),
            offsets=torch.cat(offsets, dim=1).unflatten(0, num_rows),
            points=points,
            mask=_point_mask(points, lengths, min_clips),
            clip_emb=clip_emb,
            query_emb=query_emb,
            num_clips=num_clips,
            num_queries=num_queries,
        )

    def set_droppath(self, rate: float) -> None:
        """Set how often training leaves a branch of a fusion layer out (DROPPATH unless set)."""
        for layer in self.vis_fuse:
            layer.droppath.p = rate

    def _distances(self, raw: Tensor, level: int) -> Tensor:
        """Make distances of what is regressed at a level's points, positive and finite.

        What half precision cannot hold stays the largest number that it can: an infinite one would make the
        gradient of an idle head NaN, which is zero times the outputs. The bounds change no finite value.

        Args:
            raw: (B, P, 2).
            level: its number.

        Returns:
            (B, P, 2), in strides.
        """
        # exp keeps distances positive (a relu in ActionFormer); the level's factor is FCOS's, arXiv
        # 1904.01355, which has it within the exp.
        distances = self.coef(raw.clamp(max=largest_exponent(raw.dtype)).exp(), level)
        return distances.clamp(max=torch.finfo(raw.dtype).max)

    def _fuse(self, clips: Tensor, queries: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Let clips and query see each other.

        Args:
            clips: (Q, T, C).
            queries: (Q, 1, C).
            mask: (Q, T), where a video has clips; None: everywhere.

        Returns:
            The normalised outputs of all layers: clips (F, Q, T, C) and queries (F, Q, C).
        """
        x, outputs = torch.cat((clips, queries), dim=1), []
        seen = None if mask is None else F.pad(mask, (0, 1), value=True)  # (Q, T + 1)
        for layer in self.vis_fuse:
            x = layer(x, mask=seen)
            outputs.append(self.vis_norm(x))
        stacked = torch.stack(outputs)  # (F, Q, T + 1, C)
        clip_emb, query_emb = stacked[:, :, :-1], stacked[:, :, -1]
        return clip_emb if mask is None else clip_emb.masked_fill(~mask[..., None], 0), query_emb

    def _pyramid(
        self, clip_emb: Tensor, lengths: Sequence[int], min_clips: int
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Compute all levels.

        Args:
            clip_emb: (F, Q, T, C).
            lengths: of each row's video, in clips.
            min_clips: see `forward`.

        Returns:
            Per level the features (F * Q, P, C), and the mask (F * Q, P) of points that the row's video has;
            None where each has all of them.
        """
        padding = max(0, min_clips - clip_emb.size(2))
        levels = self.pyramid(F.pad(clip_emb.flatten(0, 1), (0, 0, 0, padding)))
        # A row's points of level k are computed of its own clips alone: no convolution there overlaps
        # another, so those of a longer row's end need no mask before the heads.
        padded = [max(min_clips, length) for length in lengths] * clip_emb.size(0)
        by_stride = zip(levels, STRIDES, strict=False)  # a short video has not all levels
        return levels, [_mask([n // stride for n in padded], level) for level, stride in by_stride]


def _mask(lengths: Sequence[int], padded: Tensor) -> Tensor | None:
    """Say where padded rows are, True up to each one's end.

    Args:
        lengths: of the rows, N of them.
        padded: (N, T, C).

    Returns:
        (N, T); None if no row is shorter than T.
    """
    if min(lengths, default=padded.size(1)) == padded.size(1):
        return None
    ends = uploaded(torch.tensor(lengths), padded.device)[:, None]
    return torch.arange(padded.size(1), device=padded.device) < ends


def _point_mask(points: Tensor, lengths: Sequence[int], min_clips: int) -> Tensor:
    """Choose the points that count.

    Args:
        points: (P, 4), of the longest video.
        lengths: of each row's video, in clips.
        min_clips: see `GroundingHead.forward`.

    Returns:
        (Q, P), 1 where the row's video, padded to `min_clips`, has the point, and it lies on a real clip.
    """
    position, stride = points[:, 0], points[:, 3]
    length = uploaded(torch.tensor(lengths), points.device)[:, None]  # (Q, 1)
    is_there = position + stride <= length.clamp(min=min_clips)  # a level's last point has a whole stride
    return (is_there & (position < length)).float()


def nms(candidates: Tensor, threshold: float = NMS_THRESHOLD) -> Tensor:
    """Suppress greedily: keep the rows, and zero the scores of those that overlap a better one.

    Args:
        candidates: (P, 3) of start, end, score.
        threshold: the IoU from which on a lower score is dropped.

    Returns:
        (P, 3), best first, suppressed rows last with score 0.
    """
    # 1. All overlaps at once: the loop below only looks them up.
    candidates = candidates[candidates[:, 2].argsort(descending=True)]
    spans = candidates[:, :2]
    overlaps = (iou(spans, spans) >= threshold).numpy()  # (P, P); nan (two points): no overlap
    scores = candidates[:, 2].numpy().copy()
    order = np.arange(len(scores))
    for i in range(len(order)):
        # 2. The best of the rest comes to place i. It is swapped, not moved up, which fixes the order of
        #    equal scores (the many zeros of step 3, too) as in the original system.
        best = i + int(scores[order[i:]].argmax())
        order[[i, best]] = order[[best, i]]
        # 3. What overlaps it stays, with a score of 0 (K303). Common NMS drops the row: the chain would then
        #    have fewer candidates than the published system.
        rest = order[i + 1 :]
        scores[rest[overlaps[order[i], rest]]] = 0
    return torch.cat((spans, torch.from_numpy(scores)[:, None]), dim=1)[torch.from_numpy(order)]


def decode(output: HeadOutput, num_clips: int) -> Tensor:
    """Give the scored boundaries of each query, from the last fusion layer.

    Args:
        output: of the head.
        num_clips: T, real clips.

    Returns:
        (Q, N, 3) of start, end (fractions of the video, may exceed [0, 1]) and score, best first; N is at
        most 100.
    """
    # 1. ActionFormer's inverse of `losses.assign`: a point's distances count in strides of its level.
    points, stride = output.points[:, 0], output.points[:, 3]
    start = points - output.offsets[-1, ..., 0].float() * stride  # (Q, P)
    end = points + output.offsets[-1, ..., 1].float() * stride
    # 2. Fractions of the real clips. They are not clamped here: `spans.to_seconds` does, after the NMS, as
    #    an overlap of clamped spans would be another one.
    scores = output.class_logits[-1].float().sigmoid()
    candidates = torch.stack((start / num_clips, end / num_clips, scores), dim=-1)  # (Q, P, 3)
    # 3. Hard NMS per query, and the best 100 of what it keeps in order. (ActionFormer's own is soft.)
    return torch.stack([nms(rows.detach().cpu())[:MAX_CANDIDATES] for rows in candidates])
