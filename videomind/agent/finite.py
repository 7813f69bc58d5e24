"""Refuses numbers that say nothing, of which argmax and sorting would make answers."""

from torch import Tensor, maximum
from transformers import LogitsProcessor


class NotFiniteError(ValueError):
    """Numbers that say nothing: infinite, or none."""


def check_finite(values: Tensor, what: str) -> None:
    """Refuse numbers that are not finite: argmax and sorting would make answers of them.

    Args:
        values: of any shape.
        what: they are, for the message.

    Raises:
        NotFiniteError: some are infinite or NaN.
    """
    if not values.isfinite().all():
        raise NotFiniteError(
            f"{what} are not finite numbers: the weights hold such, or {values.dtype} cannot hold what the "
            "model computes (--dtype bfloat16 or float32)"
        )


class FiniteLogits(LogitsProcessor):
    """Watches the logits of every step; the device is asked once, in the end."""

    def __init__(self) -> None:
        self._worst: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Take note of scores (B, V), and give them back as they are."""
        worst = scores.abs().amax()  # NaN where any is
        self._worst = worst if self._worst is None else maximum(self._worst, worst)
        return scores

    def check(self) -> None:
        """Refuse what was not finite."""
        if self._worst is not None:
            check_finite(self._worst, "what the model says")
