"""Numbers of training that a command line names: adapters, losses, the head's regularisation."""

from dataclasses import dataclass

DROPPATH = 0.1  # of the fusion layers, in published training
# lora_type -> (only attention projections, vision tower too)
LORA_TYPES = {
    "qkvo": (True, False),
    "linear": (False, False),
    "qkvo_all": (True, True),
    "linear_all": (False, True),
    "all": (False, True),
}


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Hyper-parameters of an adapter; the defaults are the published recipe's."""

    lora_type: str = "qkvo"
    r: int = 64
    alpha: int = 64
    dropout: float = 0.1
    bias: str = "none"
    new_tokens_only: bool = False


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the three grounding losses; the defaults are the published ones."""

    classification: float = 5.0
    regression: float = 1.0
    saliency: float = 0.05
