"""Building blocks of the grounding head: embeddings, convolution pyramid, convolution heads, level scales.

Shapes: B batch, T clips, C channels, K pyramid levels. Sub-module names are the published checkpoint's.
"""

import torch
import torch.nn.functional as F
from nncore.nn import PositionalEncoding, TransformerEncoderLayer
from torch import Tensor, nn
from transformers.activations import ACT2FN

DROPPATH = 0.1  # of the fusion layers, in training


class Transpose(nn.Module):
    """Swap time and channels: (B, T, C) to (B, C, T) and back."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, T, C) or (B, C, T). Returns: the other."""
        return x.transpose(-1, -2)


class TypeEmbedding(nn.Module):
    """A learned vector that marks what a position is (a clip or a query)."""

    def __init__(self, dims: int):
        super().__init__()
        self.weights = nn.Parameter(torch.empty(1, 1, dims).normal_(std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, T, C). Returns: x plus the vector."""
        return x + self.weights


class LevelScale(nn.Module):
    """One learned factor per pyramid level, starting at 1."""

    def __init__(self, num_levels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_levels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Args: x, any shape; level, index of the pyramid level. Returns: x scaled."""
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

    def forward(self, x: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Args: x (B, T, C); mask (B, T), 1 where a clip is real.

        Returns: per level the features (B, T // stride, C) and masks (B, T // stride).
        """
        features, masks = [], []
        for block, stride in zip(self.blocks, self.strides, strict=True):
            if x.size(1) < stride:
                break
            features.append(block(x))
            masks.append(F.max_pool1d(mask.float(), stride, stride) if stride > 1 else mask.float())
        return features, masks


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

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, T, C). Returns: (B, T, out_dims)."""
        return self.module(x)


def encoder_layer(dims: int, activation: str) -> TransformerEncoderLayer:
    """One pre-norm fusion layer: nncore's, 8 heads, ratio 4."""
    names = {"silu": "SiLU", "relu": "ReLU", "gelu": "GELU"}
    if activation not in names:
        raise ValueError(
            f"The grounding head has no activation {activation!r} (hidden_act of config.json). "
            f"Allowed: {', '.join(sorted(names))}."
        )
    return TransformerEncoderLayer(dims, droppath=DROPPATH, act_cfg=dict(type=names[activation]))


def sine_positions(dims: int) -> PositionalEncoding:
    """Fixed sine positions, normalised by the length: nncore's."""
    return PositionalEncoding(dims, normalize=True, learnable=False)
