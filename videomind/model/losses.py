"""Grounding losses: target assignment, then classification, regression and saliency.

Assignment and the first two follow ActionFormer (arXiv 2202.07925), the saliency UniVTG (arXiv 2307.16715).
Shapes: as in grounding_head; M true moments of one query.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from videomind.model.grounding_head import HeadOutput

CENTER_RADIUS = 1.5  # in strides
FOCAL_GAMMA = 2.0
TIE = 1e-3  # moments whose lengths differ by less are equally short
SALIENCY_SCALE = min(1 / 0.07, 100)


class NoPositiveError(ValueError):
    """No point of the pyramid belongs to any moment of the sample."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the three grounding losses; the defaults are the published ones."""

    classification: float = 5.0
    regression: float = 1.0
    saliency: float = 0.05


@dataclass(frozen=True, kw_only=True)
class GroundingLoss:
    """The weighted losses of one sample, summed over fusion layers and queries."""

    classification: Tensor
    regression: Tensor
    saliency: Tensor
    total: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.classification + self.regression + self.saliency)


def assign(points: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Which points are positive, and what they regress.

    A point is positive for a moment when it lies inside, within 1.5 strides of the centre, and its larger
    distance to the two ends is within the level's range. The shortest of several moments wins.

    Args: points (P, 4); moments (M, 2), in clips.
    Returns: class targets (P,), 0 or 1; regression targets (P, 2), distances to start and end in strides.
    """
    position, lower, upper, stride = (column[:, None] for column in points.unbind(1))  # (P, 1)
    start, end = moments[:, 0], moments[:, 1]  # (M,)
    distances = torch.stack((position - start, end - position), dim=-1)  # (P, M, 2)
    center = (start + end) / 2
    reach = stride * CENTER_RADIUS
    inside = torch.min(
        position - torch.max(center - reach, start), torch.min(center + reach, end) - position
    ).gt(0)
    furthest = distances.max(dim=-1).values
    positive = inside & (furthest >= lower) & (furthest <= upper)
    length = (end - start).expand_as(positive).masked_fill(~positive, float("inf"))
    shortest, index = length.min(dim=1)  # (P,)
    classes = (positive & (length <= shortest[:, None] + TIE)).any(dim=1).float()
    offsets = distances[torch.arange(len(points), device=points.device), index] / stride
    return classes, offsets


def has_positive(points: Tensor, moments: Tensor) -> bool:
    """Whether a sample can be learned from. Args: points (P, 4); moments (M, 2), in clips."""
    return bool(assign(points, moments)[0].any())


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
    """Focal loss over valid points, summed over rows. Args: classes (Q, P). Returns: a scalar."""
    loss = focal_loss(output.class_logits.float(), classes.expand_as(output.class_logits))  # (F, Q, P)
    return ((loss * output.mask).sum(-1) / output.mask.sum()).sum()


def regression_loss(output: HeadOutput, classes: Tensor, offsets: Tensor) -> Tensor:
    """L1 over positive points, summed over rows.

    Args: classes (Q, P); offsets (Q, P, 2). Returns: a scalar. Raises: NoPositiveError.
    """
    positive = (classes.bool() & output.mask.bool())[..., None]  # (Q, P, 1)
    if not positive.any():
        raise NoPositiveError("No point of the temporal pyramid lies within a true moment")
    error = (output.offsets.float() - offsets).abs().masked_fill(~positive, 0)  # (F, Q, P, 2)
    count = 2 * positive.sum(dim=(1, 2))  # (Q,)
    return (error.sum(dim=(2, 3)) / count.clamp(min=1)).sum()


def saliency_loss(output: HeadOutput, saliency: Tensor, pos_clip: Tensor) -> Tensor:
    """Contrast of one salient clip with the clips that are no more salient, summed over rows.

    Args: saliency (Q, T); pos_clip (Q,), index of the chosen clip. Returns: a scalar.
    """
    similarity = F.cosine_similarity(output.clip_emb.float(), output.query_emb.float()[:, :, None], dim=-1)
    pos_clip = pos_clip[:, None]  # (Q, 1)
    rivals = saliency <= saliency.gather(1, pos_clip)  # (Q, T); holds the chosen clip itself
    logits = (similarity * SALIENCY_SCALE).masked_fill(~rivals, float("-inf"))  # (F, Q, T)
    chosen = pos_clip.expand(len(logits), -1, -1)
    return -logits.log_softmax(-1).gather(2, chosen).sum()


def grounding_loss(
    output: HeadOutput,
    *,
    moments: list[Tensor],
    num_clips: int,
    saliency: Tensor,
    pos_clip: Tensor,
    weights: LossWeights,
) -> GroundingLoss:
    """All grounding losses of one sample.

    Args:
        output: of the head, Q queries.
        moments: Q tensors (M, 2), fractions of the video.
        num_clips: T, real clips (without padding).
        saliency: (Q, T), 1 on clips that belong to a moment.
        pos_clip: (Q,), the salient clip to contrast.
    Raises: NoPositiveError.
    """
    targets = [assign(output.points, spans.to(output.points) * num_clips) for spans in moments]
    classes = torch.stack([t[0] for t in targets])  # (Q, P)
    offsets = torch.stack([t[1] for t in targets])  # (Q, P, 2)
    return GroundingLoss(
        classification=weights.classification * classification_loss(output, classes),
        regression=weights.regression * regression_loss(output, classes, offsets),
        saliency=weights.saliency * saliency_loss(output, saliency, pos_clip),
    )
