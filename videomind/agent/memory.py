"""Steps of the agent that a device's memory may be too small for, and how they are made smaller."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from videomind.device import free_cached_memory
from videomind.faults import is_out_of_memory
from videomind.model.adapters import bare
from videomind.runs.boundary import release_frames

T = TypeVar("T")
PIECES = 8


def unless_too_large(step: Callable[[], T]) -> T | RuntimeError:
    """Run a step. If the memory is too small, what it held is let go, else it would be there for the next.

    Returns:
        What it gives, or the error that the device's memory was too small for it.
    """
    try:
        return step()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        release_frames(error)
        too_large = error
    free_cached_memory()
    return too_large


def at_its_smallest(step: Callable[[], T]) -> T:
    """Run a step that cannot be made smaller.

    Raises:
        OutOfMemoryError: the device's memory is too small for it, in whichever words that was said.
    """
    result = unless_too_large(step)
    if isinstance(result, RuntimeError):
        raise torch.OutOfMemoryError(str(result)) from None
    return result


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
