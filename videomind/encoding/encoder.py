"""Messages and frames to tensors: ids, labels, patches, segment tokens and grounding targets.

Shapes: L tokens, N patches, T temporal steps of the video grid (T, H, W), Q `<|reg|>` tokens.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from videomind.backbones.processor import Processor
from videomind.dataset.schema import GroundingTarget, Sample
from videomind.encoding.conversation import render
from videomind.roles import SEG_END_TOKEN, SEG_START_TOKEN
from videomind.spans import fit

IGNORE_INDEX = -100


class BadSampleError(ValueError):
    """A sample that cannot be learned from, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Tensors of one sample.

    Attributes:
        input_ids, labels: (L,).
        pixel_values: (N, 1176). grid: (3,) of (T, H, W) in patches.
        timestamps: per `<|reg|>` the true moments (M, 2) as fractions of the video.
        saliency: (Q, T). pos_clip: (Q,). None unless the sample grounds.
    """

    input_ids: Tensor
    labels: Tensor
    pixel_values: Tensor
    grid: Tensor
    timestamps: list[Tensor] | None = None
    saliency: Tensor | None = None
    pos_clip: Tensor | None = None


class Encoder:
    """Turns samples and their frames into tensors.

    Args:
        processor: tokenizer and pixel settings.
        max_length: tokens a sample may have; a longer one is a bad sample, because cutting it would lose
            video or reply. None: no limit.
        check_moments: says whether (number of clips, moments in clips) can be learned from.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        max_length: int | None = None,
        check_moments: Callable[[int, Tensor], bool] | None = None,
    ):
        self.processor = processor
        self.max_length = max_length
        self.check_moments = check_moments
        self._video_pad = processor.token_id("<|video_pad|>")
        self._vision_start = processor.token_id("<|vision_start|>")
        self._segment = (processor.token_id(SEG_START_TOKEN), processor.token_id(SEG_END_TOKEN))

    def __call__(self, sample: Sample, frames: Tensor, rng: random.Random | None = None) -> Encoded:
        """Encode one sample.

        Args: frames (F, 3, h, w), uint8, resized; rng, chooses the positive clip of a grounding sample.
        Raises: BadSampleError.
        """
        if sample.response is not None and not frames.any():
            raise BadSampleError("every pixel of the excerpt is zero")
        pixels, grid = self.patches(frames)
        ids, labels = self._tokens(sample, grid)
        if self.max_length is not None and len(ids) > self.max_length:
            raise BadSampleError(f"{len(ids)} tokens, more than --model_max_length {self.max_length}")
        if sample.response is not None and not (labels != IGNORE_INDEX).any():
            raise BadSampleError("nothing is supervised: the response is empty")
        targets = {} if sample.grounding is None else self._targets(sample.grounding, int(grid[0]), rng)
        return Encoded(input_ids=ids, labels=labels, pixel_values=pixels, grid=grid, **targets)

    def with_text(self, sample: Sample, encoded: Encoded) -> Encoded:
        """The frames of `encoded` under the text of `sample`, for inference."""
        ids, labels = self._tokens(sample, encoded.grid)
        return replace(encoded, input_ids=ids, labels=labels)

    def patches(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised patches. Args: frames (F, 3, h, w), uint8. Returns: (N, 1176), grid (3,)."""
        out = self.processor.patcher(videos=[frames], return_tensors="pt")
        return out["pixel_values_videos"], out["video_grid_thw"][0]

    def _tokens(self, sample: Sample, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and labels (L,), the video's placeholder expanded and segment tokens inserted."""
        talk = render(sample)
        encoding = self.processor.tokenizer(
            talk.context + talk.response, add_special_tokens=False, return_offsets_mapping=True
        )
        ids = torch.tensor(encoding["input_ids"])
        learned = torch.tensor([start >= len(talk.context) for start, _ in encoding["offset_mapping"]])
        labels = ids.masked_fill(~learned, IGNORE_INDEX)
        t, h, w = grid.tolist()
        merge = self.processor.patcher.merge_size
        place = int((ids == self._video_pad).nonzero()[0])
        repeats = torch.ones_like(ids)
        repeats[place] = t * h * w // merge**2
        ids, labels = ids.repeat_interleave(repeats), labels.repeat_interleave(repeats)
        if sample.segment is not None:
            ids, labels = self._insert_segment(ids, labels, sample.segment, t, h * w // merge**2)
        return ids, labels

    def _insert_segment(
        self, ids: Tensor, labels: Tensor, segment: tuple[float, float], steps: int, per_step: int
    ) -> tuple[Tensor, Tensor]:
        """Put the segment tokens before the temporal steps where the candidate starts and ends.

        Args: segment, the candidate's place as fractions; steps, T; per_step, tokens of one step.
        """
        first = int((ids == self._vision_start).nonzero()[0]) + 1
        start, end = (min(max(round(x * steps), 0), steps) for x in segment)
        # The end token goes in second, so its place counts the first one.
        for token, place in zip(
            self._segment, (first + start * per_step, first + 1 + end * per_step), strict=True
        ):
            ids = torch.cat((ids[:place], ids.new_tensor([token]), ids[place:]))
            labels = torch.cat((labels[:place], labels.new_tensor([IGNORE_INDEX]), labels[place:]))
        return ids, labels

    def _targets(self, target: GroundingTarget, steps: int, rng: random.Random) -> dict:
        """Targets of the grounding head. Args: steps, T."""
        rate = steps / target.duration_s  # clips per second
        spans = [fit(span, target.duration_s, 1 / rate) for span in target.spans]
        moments = torch.tensor(spans, dtype=torch.float64) / target.duration_s  # (M, 2)
        if self.check_moments is not None and not self.check_moments(steps, moments.float() * steps):
            raise BadSampleError(f"no point of the temporal pyramid lies within the moments {target.spans} s")
        saliency = torch.zeros(1, steps)
        for start, end in spans:
            saliency[0, salient_clips(start, end, rate, steps)] = 1
        candidates = saliency[0].nonzero()[:, 0].tolist()
        return {
            "timestamps": [moments.float()],
            "saliency": saliency,
            "pos_clip": torch.tensor([rng.choice(candidates)]),
        }


def salient_clips(start_s: float, end_s: float, rate: float, steps: int) -> slice:
    """Clips that belong to a moment, at least one (rounding must not lose a short moment).

    Args: start_s, end_s; rate, clips per second; steps, T.
    """
    first, stop = math.ceil(max(0.0, start_s * rate)), math.ceil(min(end_s * rate, steps))
    if stop <= first:
        first = min(int((start_s + end_s) / 2 * rate), steps - 1)
        stop = first + 1
    return slice(first, stop)
