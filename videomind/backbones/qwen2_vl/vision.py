"""Qwen2-VL's vision tower, quicker: the same weights and results as transformers', in fewer operators.

transformers takes the attention of every frame by a call of its own, asks the device for the lengths of the
frames in every layer, and cuts patches by a three-dimensional convolution. Videos have many small frames of
one size, whose attention is one call here, and a convolution that never overlaps is a product of matrices.
"""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2VLVisionConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel,
    VisionAttention,
    apply_rotary_pos_emb_vision,
)

Runs = list[tuple[int, int]]  # how many frames follow each other with how many patches each

BATCHED = "sdpa"  # flash attention takes all frames at once by itself; eager would keep all scores at once


def frame_runs(grids: Tensor) -> Runs:
    """Count the frames that follow each other with as many patches.

    Args:
        grids: (B, 3), of steps, rows and columns.
    """
    sizes = [(rows * columns, steps) for steps, rows, columns in grids.tolist()]
    grouped = itertools.groupby(sizes, key=lambda size: size[0])
    return [(patches, sum(steps for _, steps in group)) for patches, group in grouped]


class FrameAttention(VisionAttention):
    """Attention within each frame, of all frames of a size in one call."""

    def forward(self, hidden_states: Tensor, *, runs: Runs | None = None, **kwargs: Any) -> Tensor:
        """Attend.

        Args:
            hidden_states: (N, D), of all patches of all frames.
            runs: the sizes of the frames; None leaves them to transformers.
            **kwargs: of `VisionAttention`.

        Returns:
            (N, D).
        """
        if runs is None:
            return super().forward(hidden_states, **kwargs)
        query, key, value = self.qkv(hidden_states).unflatten(1, (3, self.num_heads, -1)).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *kwargs["position_embeddings"])  # (N, heads, d)
        lengths = [patches * frames for patches, frames in runs]
        parts = []
        for (patches, _), *run in zip(runs, *(x.split(lengths) for x in (query, key, value)), strict=True):
            # Each to (frames, heads, patches, d).
            frames = [x.unflatten(0, (-1, patches)).transpose(1, 2) for x in run]
            part = F.scaled_dot_product_attention(*frames, scale=self.scaling)
            parts.append(part.transpose(1, 2).flatten(0, 1))  # (patches of the run, heads, d)
        return self.proj(torch.cat(parts).flatten(1))


class PatchProjection(nn.Conv3d):
    """A convolution over inputs of the kernel's own size, as a product of matrices."""

    def forward(self, patches: Tensor) -> Tensor:
        """Project patches (N, C, T, P, P) to (N, D)."""
        return F.linear(patches.flatten(1), self.weight.flatten(1))


class VisionTower(Qwen2VisionTransformerPretrainedModel):
    """The vision tower with frames in batches."""

    def __init__(self, config: Qwen2VLVisionConfig):
        super().__init__(config)
        # The classes have no state of their own. Other modules in their place would draw weights once more.
        self.patch_embed.proj.__class__ = PatchProjection
        for block in self.blocks:
            block.attn.__class__ = FrameAttention

    def forward(self, hidden_states: Tensor, grid_thw: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Encode the patches (N, V) of videos with grids (B, 3)."""
        runs = frame_runs(grid_thw) if self.config._attn_implementation == BATCHED else None
        return super().forward(hidden_states, grid_thw=grid_thw, runs=runs, **kwargs)
