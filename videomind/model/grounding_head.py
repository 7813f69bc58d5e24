"""The grounding head: from clip states and a query state to scored boundaries (arXiv 2503.13444, sec. 3).

Shapes: T clips, Q queries (one per `<|reg|>` token), D hidden size of the language model, C head width,
F fusion layers, K pyramid levels, P points over all levels.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    """What the head computes for one video, for every fusion layer.

    Attributes:
        class_logits: (F, Q, P).
        offsets: (F, Q, P, 2), distances to start and end in units of the point's stride, positive.
        points: (P, 4): position, smallest and largest distance it regresses, stride (all in clips).
        mask: (P,), 1 where the point lies on real clips.
        clip_emb: (F, Q, T, C); query_emb: (F, Q, C), for the saliency.
    """

    class_logits: Tensor
    offsets: Tensor
    points: Tensor
    mask: Tensor
    clip_emb: Tensor
    query_emb: Tensor


def make_points(num_clips: int, strides: tuple[int, ...] = STRIDES, max_clips: int = MAX_CLIPS) -> Tensor:
    """Anchor points of all levels (ActionFormer, arXiv 2202.07925).

    Args: num_clips, T; strides of the levels; max_clips, the longest video in clips.
    Returns: (P, 4): position, lower and upper bound of the distance it regresses, stride (in clips).
    Raises: ValueError when T exceeds max_clips.
    """
    if num_clips > max_clips:
        raise ValueError(f"{num_clips} clips are too many for the grounding head: at most {max_clips}")
    points, lower = [], 0.0
    for stride in strides:
        upper = 2.0 * stride if stride != strides[-1] else float("inf")
        if num_clips >= stride:
            position = torch.arange(num_clips // stride, dtype=torch.float32) * stride
            bounds = torch.tensor([lower, upper, float(stride)]).expand(len(position), 3)
            points.append(torch.cat((position[:, None], bounds), dim=1))
        lower = upper
    return torch.cat(points)


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

    def forward(self, clip_states: Tensor, query_states: Tensor, *, min_clips: int = 1) -> HeadOutput:
        """Run the head on one video.

        Args:
            clip_states: (T, D), the mean state of each temporal step.
            query_states: (Q, D), the state that predicts each `<|reg|>`.
            min_clips: clips are zero-padded to this many before the pyramid (8 in training, so that
                every level exists; none at inference).
        """
        dtype = self.vis_proj[0].weight.dtype
        clips = self.vis_emb(self.vis_proj(clip_states.to(dtype))[None])  # (1, T, C)
        clips = (clips + self.vis_pos(clips).to(clips.dtype)).expand(query_states.size(0), -1, -1)
        queries = self.reg_emb(self.reg_proj(query_states.to(dtype))[:, None])  # (Q, 1, C)
        clip_emb, query_emb = self._fuse(clips, queries)
        levels, masks = self._pyramid(clip_emb.flatten(0, 1), min_clips)
        num_rows, padded = clip_emb.shape[:2], max(min_clips, clips.size(1))
        class_logits = torch.cat([self.class_head(level) for level in levels], dim=1)  # (F*Q, P, 1)
        offsets = [self._distances(level, i) for i, level in enumerate(levels)]
        return HeadOutput(
            class_logits=class_logits.squeeze(-1).unflatten(0, num_rows),
            offsets=torch.cat(offsets, dim=1).unflatten(0, num_rows),
            points=make_points(padded).to(clips.device),
            mask=torch.cat(masks, dim=1)[0],
            clip_emb=clip_emb,
            query_emb=query_emb,
        )

    def set_droppath(self, rate: float) -> None:
        """Set how often training leaves a branch of a fusion layer out (DROPPATH unless set)."""
        for layer in self.vis_fuse:
            layer.droppath.p = rate

    def _distances(self, level: Tensor, number: int) -> Tensor:
        """Regress the distances of a level's points, positive and finite.

        What half precision cannot hold stays the largest number that it can: an infinite one would make the
        gradient of an idle head NaN, which is zero times the outputs. The bounds change no finite value.

        Args:
            level: (B, P, C).
            number: of the level.

        Returns:
            (B, P, 2), in strides.
        """
        raw = self.coord_head(level)
        return self.coef(raw.clamp(max=largest_exponent(raw.dtype)).exp(), number).clamp(
            max=torch.finfo(raw.dtype).max
        )

    def _fuse(self, clips: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Args: (Q, T, C), (Q, 1, C). Returns: (F, Q, T, C), (F, Q, C), all layers' normalised outputs."""
        x, outputs = torch.cat((clips, queries), dim=1), []
        for layer in self.vis_fuse:
            x = layer(x)
            outputs.append(self.vis_norm(x))
        stacked = torch.stack(outputs)  # (F, Q, T + 1, C)
        return stacked[:, :, :-1], stacked[:, :, -1]

    def _pyramid(self, clip_emb: Tensor, min_clips: int) -> tuple[list[Tensor], list[Tensor]]:
        num_rows, num_clips = clip_emb.shape[:2]
        padding = max(0, min_clips - num_clips)
        mask = F.pad(clip_emb.new_ones(num_rows, num_clips), (0, padding))
        return self.pyramid(F.pad(clip_emb, (0, 0, 0, padding)), mask)


def nms(candidates: Tensor, threshold: float = NMS_THRESHOLD) -> Tensor:
    """Greedy non-maximum suppression that keeps the rows and zeroes the scores it suppresses.

    The best remaining row is swapped to the front, which fixes the order of equal scores as in the
    original system.

    Args: candidates (P, 3): start, end, score; threshold, the IoU from which on a lower score is dropped.
    Returns: (P, 3), best first, suppressed rows last with score 0.
    """
    candidates = candidates[candidates[:, 2].argsort(descending=True)]
    spans = candidates[:, :2]
    overlaps = (iou(spans, spans) >= threshold).numpy()  # (P, P); nan: no overlap
    scores = candidates[:, 2].numpy().copy()
    order = np.arange(len(scores))
    for i in range(len(order)):
        best = i + int(scores[order[i:]].argmax())
        order[[i, best]] = order[[best, i]]
        rest = order[i + 1 :]
        scores[rest[overlaps[order[i], rest]]] = 0
    return torch.cat((spans, torch.from_numpy(scores)[:, None]), dim=1)[torch.from_numpy(order)]


def decode(output: HeadOutput, num_clips: int) -> Tensor:
    """Scored boundaries of each query, from the last fusion layer.

    Args: output; num_clips, T.
    Returns: (Q, N, 3): start, end (fractions of the video, may exceed [0, 1]) and score, best first;
    N is at most 100.
    """
    points, stride = output.points[:, 0], output.points[:, 3]
    start = points - output.offsets[-1, ..., 0].float() * stride  # (Q, P)
    end = points + output.offsets[-1, ..., 1].float() * stride
    scores = output.class_logits[-1].float().sigmoid()
    candidates = torch.stack((start / num_clips, end / num_clips, scores), dim=-1)  # (Q, P, 3)
    return torch.stack([nms(rows.detach().cpu())[:MAX_CANDIDATES] for rows in candidates])
