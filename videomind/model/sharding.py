"""Whole parameters under DeepSpeed ZeRO-3, where each process holds a part of every one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled


@contextmanager
def gathered(params: Iterable[nn.Parameter], *, modify: bool = False) -> Iterator[None]:
    """Make sharded parameters whole within the block; does nothing without ZeRO-3.

    Args:
        params: that the block needs.
        modify: whether the block writes them; every process must write the same values.
    """
    if not is_deepspeed_zero3_enabled():
        context = nullcontext()
    else:
        import deepspeed

        sharded = [p for p in params if hasattr(p, "ds_id")]
        context = deepspeed.zero.GatheredParameters(sharded, modifier_rank=0 if modify else None)
    with context:
        yield
