"""Building blocks of the grounding head: positions, fusion layers, convolutions, scales.

Shapes: B batch, T clips, C channels, H attention heads, K pyramid levels. Sub-module names are the published
checkpoint's. It was trained with nncore's positions and fusion layers: ours do the same operations in the
same order and memory layout, so that values, gradients and random draws equal theirs bit for bit.
"""

import math

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from videomind.model.settings import DROPPATH

ACTIVATIONS = ("gelu", "relu", "silu")
NUM_HEADS = 8
FEED_FORWARD_RATIO = 4
TEMPERATURE = 10_000  # of the sine positions


class Transpose(nn.Module):
    """Swap time and channels: (B, T, C) to (B, C, T) and back."""

    def forward(self, x: Tensor) -> Tensor:
        """Swap (B, T, C) to (B, C, T), or back."""
        return x.transpose(-1, -2)


class TypeEmbedding(nn.Module):
    """A learned vector that marks what a position is (a clip or a query)."""

    def __init__(self, dims: int):
        super().__init__()
        self.weights = nn.Parameter(torch.empty(1, 1, dims).normal_(std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        """Add the vector to (B, T, C)."""
        return x + self.weights


class LevelScale(nn.Module):
    """One learned factor per pyramid level, starting at 1."""

    def __init__(self, num_levels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_levels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Scale x, of any shape, by the factor of a pyramid level (its index)."""
        return x * self.scale[level]


def _xavier(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class ConvPyramid(nn.Module):
    """Temporal feature pyramid by strided convolutions (after ActionFormer, arXiv 2202.07925).

    Level k has stride 2^k: k times (convolution of stride 2, layer norm, activation) over the clips;
    level 0 is the activation alone. Levels whose stride exceeds the length are left out.
    """

    def __init__(self, dims: int, strides: tuple[int, ...], activation: str):
        super().__init__()
        self.strides = strides
        self.blocks = nn.ModuleList()
        for stride in strides:
            halvings = stride.bit_length() - 1
            if stride != 2**halvings:
                raise ValueError(f"Pyramid stride {stride} is not a power of two (strides {strides})")
            layers: list[nn.Module] = [] if halvings else [ACT2FN[activation]]
            for _ in range(halvings):
                conv = nn.Conv1d(dims, dims, kernel_size=2, stride=2)
                layers += [Transpose(), conv, Transpose(), nn.LayerNorm(dims), ACT2FN[activation]]
            self.blocks.append(nn.Sequential(*layers))
        _xavier(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute all levels of (B, T, C): (B, T // stride, C) each."""
        by_stride = zip(self.blocks, self.strides, strict=True)
        return [block(x) for block, stride in by_stride if x.size(1) >= stride]


class ConvHead(nn.Module):
    """Two temporal convolutions that turn features into `out_dims` numbers per point."""

    def __init__(self, dims: int, out_dims: int, activation: str, kernel_size: int = 3):
        super().__init__()
        padding = kernel_size // 2
        self.module = nn.Sequential(
            Transpose(),
            nn.Conv1d(dims, dims, kernel_size, padding=padding),
            ACT2FN[activation],
            nn.Conv1d(dims, out_dims, kernel_size, padding=padding),
            Transpose(),
        )
        _xavier(self)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map features to numbers.

        Args:
            x: (B, T, C).
            mask: (B, T), False behind a row's end, where a longer row of the batch goes on. None: all rows
                are of one length.

        Returns:
            (B, T, out_dims); behind a row's end they mean nothing.
        """
        if mask is None:
            return self.module(x)
        # Both convolutions pad with zeros, so behind a row's end must be zeros, too, before each of them.
        behind = ~mask[..., None]  # (B, T, 1)
        hidden = self.module[:3](x.masked_fill(behind, 0))  # (B, C, T)
        return self.module[3:](hidden.masked_fill(behind.transpose(1, 2), 0))


class SinePositions(nn.Module):
    """Fixed sine positions (arXiv 1706.03762, sec. 3.5) that rise to 2 pi over any number of clips."""

    def __init__(self, dims: int):
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Make positions in float32.

        Args:
            x: (B, T, C), of which only T and the device count.
            mask: (B, T), True on a row's clips, which come first. None: all rows have T of them.

        Returns:
            (B, T, C), or (1, T, C) for all rows without a mask.
        """
        position = torch.arange(1, x.size(1) + 1, device=x.device)[None]  # (1, T)
        last = position[:, -1:] if mask is None else mask.sum(1, keepdim=True)  # (B, 1)
        angle = position / (last + 1e-6) * (2 * math.pi)  # (B, T)
        channel = torch.arange(self.dims, device=x.device)
        wavelength = TEMPERATURE ** (channel // 2 * 2 / self.dims)  # (C,), one for each sine and its cosine
        angles = angle[..., None] / wavelength  # (B, T, C)
        return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(2)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training a sample's branch is left out with probability `p`."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Zero some rows of x (B, ...) in training, and scale the others up."""
        if not self.training or self.p == 0:
            return x
        keep = 1 - self.p
        draw = torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
        return x / keep * (keep + draw).floor()


class SelfAttention(nn.Module):
    """Multi-head self-attention (arXiv 1706.03762, sec. 3.2)."""

    def __init__(self, dims: int):
        super().__init__()
        self.q, self.k, self.v, self.m = (nn.Linear(dims, dims) for _ in range(4))
        for layer in (self.q, self.k, self.v, self.m):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let every position see all others: (B, T, C) to (B, T, C).

        Args:
            x: the states.
            mask: (B, T), False at positions that none may see; None: all are seen.
        """
        num_rows, num_clips, dims = x.shape
        width = dims // NUM_HEADS

        def by_head(states: Tensor) -> Tensor:
            """Split (B, T, C) into (B * H, T, C / H), time first in memory."""
            time_first = states.transpose(0, 1).contiguous()
            return time_first.view(num_clips, num_rows * NUM_HEADS, width).transpose(0, 1)

        q, k, v = by_head(self.q(x)), by_head(self.k(x)), by_head(self.v(x))
        scores = torch.bmm(q, k.transpose(1, 2)) / width**0.5  # (B * H, T, T)
        if mask is not None:
            scores = scores.masked_fill(~mask.repeat_interleave(NUM_HEADS, dim=0)[:, None], float("-inf"))
        mixed = torch.bmm(scores.softmax(-1), v).transpose(0, 1).contiguous()  # (T, B * H, C / H)
        return self.m(mixed.view(num_clips, num_rows, dims).transpose(0, 1))


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, dims: int, activation: str):
        super().__init__()
        wide = FEED_FORWARD_RATIO * dims
        self.mapping = nn.Sequential(nn.Linear(dims, wide), ACT2FN[activation], nn.Linear(wide, dims))
        for layer in (self.mapping[0], self.mapping[2]):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map every position by itself: (B, T, C) to (B, T, C)."""
        return self.mapping(x)


class FusionLayer(nn.Module):
    """A pre-norm transformer layer, in which clips and the query see each other."""

    def __init__(self, dims: int, activation: str):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"The grounding head has no activation {activation!r} (hidden_act of config.json). "
                f"Allowed: {', '.join(ACTIVATIONS)}."
            )
        self.self_att = SelfAttention(dims)
        self.self_att_norm = nn.LayerNorm(dims)
        self.ffn = FeedForward(dims, activation)
        self.ffn_norm = nn.LayerNorm(dims)
        self.droppath = DropPath(DROPPATH)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Fuse (B, T, C), the clips and then the query, to (B, T, C).

        Args:
            x: the states.
            mask: (B, T), see `SelfAttention`; norms and feed-forward see each position by itself.
        """
        x = x + self.droppath(self.self_att(self.self_att_norm(x), mask))
        return x + self.droppath(self.ffn(self.ffn_norm(x)))
