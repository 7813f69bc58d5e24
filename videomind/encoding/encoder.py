"""Messages and frames to tensors: ids, labels, patches, segment tokens and grounding targets.

Shapes: L tokens, N patches of V values, T temporal steps of the video grid (T, H, W), Q `<|reg|>` tokens.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from videomind.backbones.backbone import Processor
from videomind.dataset.schema import GroundingTarget, Sample
from videomind.encoding.conversation import render
from videomind.encoding.text import TextEncoder
from videomind.model.losses import HeadTargets
from videomind.roles import SEG_END_TOKEN, SEG_START_TOKEN
from videomind.spans import fit
from videomind.video.request import Excerpt

IGNORE_INDEX = -100


class BadSampleError(ValueError):
    """A sample that cannot be learned from, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Tensors of one sample.

    Attributes:
        input_ids, labels: (L,).
        pixel_values: (N, V), the patches as they travel: `Processor.normalized` makes inputs of them.
        grid: (3,) of (T, H, W) in patches.
        targets: of the grounding head; None unless the sample grounds.
    """

    input_ids: Tensor
    labels: Tensor
    pixel_values: Tensor
    grid: Tensor
    targets: HeadTargets | None = None


class Encoder:
    """Turns samples and their frames into tensors.

    Args:
        processor: tokenizer and pixel settings.
        max_length: tokens a sample may have; a longer one is a bad sample, because cutting it would lose
            video or reply. None: no limit.
        is_learnable: says whether (number of clips, moments in clips) can be learned from.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        max_length: int | None = None,
        is_learnable: Callable[[int, Tensor], bool] | None = None,
    ):
        self.processor, self.backbone = processor, processor.backbone
        self.max_length = max_length
        self.is_learnable = is_learnable
        self._video = processor.token_id(self.backbone.video_token)
        self._text = TextEncoder(processor.tokenizer)
        self._segment = (processor.token_id(SEG_START_TOKEN), processor.token_id(SEG_END_TOKEN))

    def __call__(self, sample: Sample, frames: Tensor, rng: random.Random | None = None) -> Encoded:
        """Encode one sample.

        Args:
            sample: what is seen and said.
            frames: (F, 3, h, w), uint8, resized.
            rng: chooses the positive clip of a grounding sample.

        Raises:
            BadSampleError: It cannot be learned from, or is too long.
        """
        if sample.response is not None and not frames.any():
            raise BadSampleError("every pixel of the excerpt is zero")
        pixels, grid = self.patches(frames)
        ids, labels = self._tokens(sample, grid)
        if self.max_length is not None and len(ids) > self.max_length:
            raise BadSampleError(f"{len(ids)} tokens, more than --model_max_length {self.max_length}")
        if sample.response is not None and not (labels != IGNORE_INDEX).any():
            raise BadSampleError("nothing is supervised: the response is empty")
        targets = None if sample.grounding is None else self._targets(sample.grounding, int(grid[0]), rng)
        return Encoded(input_ids=ids, labels=labels, pixel_values=pixels, grid=grid, targets=targets)

    def with_text(self, sample: Sample, encoded: Encoded) -> Encoded:
        """Put the frames of `encoded` under the text of `sample`, for inference."""
        ids, labels = self._tokens(sample, encoded.grid)
        return replace(encoded, input_ids=ids, labels=labels)

    def excerpt(self, sample: Sample) -> Excerpt:
        """Say what to decode for a sample: its excerpt, the budget in the backbone's units."""
        return replace(sample.excerpt, budget=sample.excerpt.budget.on(self.backbone.units))

    def patches(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Cut frames (F, 3, h, w), uint8, into patches (N, V) as they travel, and their grid (3,)."""
        return self.backbone.patches(self.processor, frames)

    def _tokens(self, sample: Sample, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Make ids and labels (L,), the video's placeholder expanded and segment tokens inserted."""
        talk = render(sample, self.backbone)
        tokens = self._text((*talk.asked, *talk.learned), add_special_tokens=False)
        ids, length = torch.tensor(tokens.ids), len(talk.context)
        learned = torch.tensor([start >= length for start in tokens.starts])
        labels = ids.masked_fill(~learned, IGNORE_INDEX)
        (video_index,) = (ids == self._video).nonzero()[:, 0].tolist()  # nothing that data say is one
        repeats = torch.ones_like(ids)
        repeats[video_index] = grid[0] * self.backbone.tokens_per_step(grid.tolist())
        ids, labels = ids.repeat_interleave(repeats), labels.repeat_interleave(repeats)
        if sample.segment is not None:
            ids, labels = self._insert_segment(ids, labels, sample.segment, grid.tolist())
        return ids, labels

    def _insert_segment(
        self, ids: Tensor, labels: Tensor, segment: tuple[float, float], grid: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Put the segment tokens before the temporal steps where the candidate starts and ends.

        Args:
            ids, labels: (L,), with the video's tokens.
            segment: the candidate's place within the excerpt, as fractions.
            grid: (T, H, W).
        """
        # Each goes before the step that the fraction rounds to, or behind the last one.
        steps = self.backbone.step_places(ids == self._video, grid)  # (T, tokens of a step)
        borders = [*steps[:, 0].tolist(), int(steps[-1, -1]) + 1]  # where each step begins, and the end
        start, end = (borders[min(max(round(x * grid[0]), 0), grid[0])] for x in segment)
        # The end token goes in second, so its place counts the first one.
        for token, index in zip(self._segment, (start, end + 1), strict=True):
            ids = torch.cat((ids[:index], ids.new_tensor([token]), ids[index:]))
            labels = torch.cat((labels[:index], labels.new_tensor([IGNORE_INDEX]), labels[index:]))
        return ids, labels

    def _targets(self, target: GroundingTarget, steps: int, rng: random.Random) -> HeadTargets:
        """Make the head's targets for a video of T steps."""
        # 1. In the video, and at least one clip long (about its centre).
        rate = steps / target.duration_s  # clips per second
        spans_s = [fit(span, target.duration_s, 1 / rate) for span in target.spans]
        spans = (torch.tensor(spans_s, dtype=torch.float64) / target.duration_s).float()  # (M, 2)
        if self.is_learnable is not None and not self.is_learnable(steps, spans * steps):
            raise BadSampleError(f"no point of the temporal pyramid lies within the moments {target.spans} s")
        # 2. UniVTG's saliency (arXiv 2307.16715) with two grades: a clip belongs to a moment or not.
        saliency = torch.zeros(1, steps)
        for start_s, end_s in spans_s:
            saliency[0, salient_clips(start_s, end_s, rate, steps)] = 1
        # 3. One of them at random is contrasted with the others.
        salient = saliency[0].nonzero()[:, 0].tolist()
        pos_clip = torch.tensor([rng.choice(salient)])
        return HeadTargets(spans=(spans,), saliency=saliency, pos_clip=pos_clip)


def salient_clips(start_s: float, end_s: float, rate: float, steps: int) -> slice:
    """Choose the clips that belong to a moment, at least one (rounding must not lose a short moment).

    Args:
        start_s, end_s: of the moment.
        rate: clips per second.
        steps: T.
    """
    # Clips that *begin* in the moment, its end excluded, as in published training.
    first, stop = math.ceil(max(0.0, start_s * rate)), math.ceil(min(end_s * rate, steps))
    if stop <= first:
        first = min(int((start_s + end_s) / 2 * rate), steps - 1)  # the one at its centre (D305)
        stop = first + 1
    return slice(first, stop)
