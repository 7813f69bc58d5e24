"""The smaller step for a small memory: feed-forward layers take the tokens a piece at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from videomind.model.adapters import bare

PIECES = 8


@contextmanager
def in_pieces(model: nn.Module) -> Iterator[None]:
    """Let feed-forward layers see a piece of the tokens at a time within a block.

    Each token is seen by itself, so the numbers are the same. What lies within such a layer is the largest
    of what a long prompt needs: of a 7B, three times 5.3 widths of every token.

    Args:
        model: a role model, bare or wrapped by PEFT.
    """
    inner = bare(model)
    layers = [
        module
        for name, module in inner.named_modules()
        if name.rpartition(".")[2] == inner.backbone.feed_forward
    ]
    own = [vars(module).get("forward") for module in layers]  # set where a model is spread over devices
    for module in layers:
        module.forward = partial(_by_piece, module.forward)
    try:
        yield
    finally:
        for module, forward in zip(layers, own, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _by_piece(forward: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    """Run a layer on pieces of states (..., L, D)."""
    return torch.cat([forward(piece) for piece in states.chunk(PIECES, dim=-2)], dim=-2)
