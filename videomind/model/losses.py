"""Grounding losses: target assignment, then classification, regression and saliency.

Assignment and the first two follow ActionFormer (arXiv 2202.07925), the saliency UniVTG (arXiv 2307.16715).
Shapes: as in grounding_head; M true moments of one query.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from videomind.model.grounding_head import STRIDES, HeadOutput, make_points
from videomind.model.settings import LossWeights

CENTER_RADIUS = 1.5  # in strides
FOCAL_GAMMA = 2.0
SALIENCY_SCALE = min(1 / 0.07, 100)


class NoPositiveError(ValueError):
    """No point of the pyramid belongs to any moment of the sample."""


@dataclass(frozen=True, kw_only=True)
class HeadTargets:
    """What the head learns of one sample.

    Attributes:
        spans: for each `<|reg|>` its true moments (M, 2), as fractions of the video.
        saliency: (Q, T), 1 on clips that belong to a moment.
        pos_clip: (Q,), the salient clip to contrast with the others.
    """

    spans: tuple[Tensor, ...]
    saliency: Tensor
    pos_clip: Tensor

    def pin_memory(self) -> "HeadTargets":
        """Copy them into memory from which a device fetches without anybody's waiting."""
        spans = tuple(span.pin_memory() for span in self.spans)
        return HeadTargets(
            spans=spans, saliency=self.saliency.pin_memory(), pos_clip=self.pos_clip.pin_memory()
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "HeadTargets":
        """Move them. The type stays: targets are float32 under half precision too."""
        spans = tuple(span.to(device, non_blocking=non_blocking) for span in self.spans)
        saliency, pos_clip = (x.to(device, non_blocking=non_blocking) for x in (self.saliency, self.pos_clip))
        return HeadTargets(spans=spans, saliency=saliency, pos_clip=pos_clip)


@dataclass(frozen=True, kw_only=True)
class GroundingLoss:
    """The weighted losses of each video (V), summed over fusion layers and its queries."""

    classification: Tensor
    regression: Tensor
    saliency: Tensor
    total: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.classification + self.regression + self.saliency)


def assign(points: Tensor, spans: Tensor) -> tuple[Tensor, Tensor]:
    """Decide which points learn a moment, and what they regress.

    ActionFormer's rule (`label_points_single_video` of its code) but for one thing: a point *on* a boundary
    counts as inside, as the published weights were trained. ActionFormer wants it strictly inside.

    Args:
        points: (P, 4), see `make_points`.
        spans: (..., M, 2), the moments in clips. One of NaN holds no point.

    Returns:
        Class targets (..., P), 0 or 1, and regression targets (..., P, 2), the distances to start and end in
        strides.
    """
    position, low, high, stride = (column[:, None] for column in points.unbind(1))  # (P, 1)
    start, end = spans[..., None, :, :].unbind(-1)  # (..., 1, M)
    # 1. The point lies in the moment, and within 1.5 strides of its centre.
    centre, radius = (start + end) / 2, CENTER_RADIUS * stride
    left, right = torch.maximum(start, centre - radius), torch.minimum(end, centre + radius)  # (..., P, M)
    is_inside = (left <= position) & (position <= right)
    # 2. Its level answers for moments of this size: the further end is within the level's range.
    distances = torch.stack((position - start, end - position), dim=-1)  # (..., P, M, 2)
    reach = distances.amax(dim=-1)
    is_positive = is_inside & (low <= reach) & (reach <= high)
    # 3. Of several moments it learns the shortest, which is the easiest to regress; of equal ones the first.
    length = (end - start).expand_as(is_positive).masked_fill(~is_positive, torch.inf)
    shortest = length.min(dim=-1).indices[..., None, None]  # (..., P, 1, 1)
    offsets = torch.take_along_dim(distances, shortest, dim=-2).squeeze(-2)
    return is_positive.any(dim=-1).float(), offsets / stride


def has_positive(num_clips: int, spans: Tensor) -> bool:
    """Tell whether a sample can be learned from: whether a point that counts in training is positive.

    Args:
        num_clips: of the video.
        spans: (M, 2), the moments in clips.
    """
    points = make_points(max(num_clips, max(STRIDES)))
    is_real = points[:, 0] < num_clips  # the mask of a short video's padding
    return bool(assign(points[is_real], spans)[0].any())


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy that counts a point less the surer it is (arXiv 1708.02002, without its class weight).

    Args:
        logits: of any shape.
        targets: 0 or 1, of that shape.
    Returns:
        The loss of each point, of that shape.
    """
    prob = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    prob_of_truth = prob * targets + (1 - prob) * (1 - targets)
    return cross_entropy * (1 - prob_of_truth) ** FOCAL_GAMMA


def classification_loss(output: HeadOutput, classes: Tensor) -> Tensor:
    """Compute the focal loss over valid points, summed over each video's rows.

    Args:
        output: of the head.
        classes: (Q, P), 0 or 1.

    Returns:
        (V,).
    """
    # Divided by the number of valid points, where ActionFormer divides by a running mean of the positives.
    logits = _precise(output.class_logits)
    loss = focal_loss(logits, classes.to(logits.dtype).expand_as(logits))  # (F, Q, P)
    return _by_video((loss * output.mask).sum(-1) / output.mask.sum(-1), output)


def regression_loss(output: HeadOutput, classes: Tensor, offsets: Tensor) -> Tensor:
    """Compute the L1 distance over positive points, summed over each video's rows.

    Args:
        output: of the head.
        classes: (Q, P), 0 or 1.
        offsets: (Q, P, 2), distances to start and end in strides.

    Returns:
        (V,).

    Raises:
        NoPositiveError: A video has no positive point among its valid ones.
    """
    positive = (classes.bool() & output.mask.bool())[..., None]  # (Q, P, 1)
    count = 2 * positive.sum(dim=(1, 2))  # (Q,)
    if not all(part.any() for part in count.cpu().split(output.num_queries)):
        raise NoPositiveError("No point of the temporal pyramid lies within a true moment")
    # L1 in strides; ActionFormer has a DIoU loss here.
    error = (_precise(output.offsets) - offsets).abs().masked_fill(~positive, 0)  # (F, Q, P, 2)
    return _by_video(error.sum(dim=(2, 3)) / count.clamp(min=1), output)


def saliency_loss(output: HeadOutput, saliency: Tensor, pos_clip: Tensor) -> Tensor:
    """Contrast one salient clip with the clips that are no more salient, summed over each video's rows.

    Args:
        output: of the head.
        saliency: (Q, T), infinite behind a video's end.
        pos_clip: (Q,), index of the chosen clip.

    Returns:
        (V,).
    """
    clips, query = _precise(output.clip_emb), _precise(output.query_emb)[:, :, None]
    similarity = F.cosine_similarity(clips, query, dim=-1)  # (F, Q, T)
    # UniVTG's contrast within a video, but for one thing: its rivals are less salient than the chosen clip,
    # these are no more salient, as in published training. With 0 and 1 that is every clip of the video.
    pos_clip = pos_clip[:, None]  # (Q, 1)
    rivals = saliency <= saliency.gather(1, pos_clip)  # (Q, T); holds the chosen clip itself
    logits = (similarity * SALIENCY_SCALE).masked_fill(~rivals, float("-inf"))  # (F, Q, T)
    chosen = pos_clip.expand(len(logits), -1, -1)
    return -_by_video(logits.log_softmax(-1).gather(2, chosen).squeeze(-1), output)


def _precise(x: Tensor) -> Tensor:
    """Bring to float32 what is less precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _by_video(losses: Tensor, output: HeadOutput) -> Tensor:
    """Sum the losses of rows (F, Q) over each video's (V,)."""
    return torch.stack([rows.sum() for rows in losses.split(output.num_queries, dim=1)])


def grounding_loss(
    output: HeadOutput, targets: Sequence[HeadTargets], *, weights: LossWeights
) -> GroundingLoss:
    """Compute all grounding losses of each video.

    Args:
        output: of the head.
        targets: of the same videos and queries.
        weights: of the three losses.

    Raises:
        NoPositiveError: A video has nothing to regress.
    """
    # Rows with fewer moments or clips than others are filled with what counts nowhere.
    spans = pad_sequence(
        [
            moments.to(output.points) * num_clips
            for video, num_clips in zip(targets, output.num_clips, strict=True)
            for moments in video.spans
        ],
        batch_first=True,
        padding_value=math.nan,
    )  # (Q, M, 2)
    saliency = pad_sequence(
        [row for video in targets for row in video.saliency], batch_first=True, padding_value=math.inf
    )  # (Q, T)
    classes, offsets = assign(output.points, spans)  # (Q, P) and (Q, P, 2)
    pos_clip = torch.cat([video.pos_clip for video in targets])
    return GroundingLoss(
        classification=weights.classification * classification_loss(output, classes),
        regression=weights.regression * regression_loss(output, classes, offsets),
        saliency=weights.saliency * saliency_loss(output, saliency, pos_clip),
    )
