"""What trains, in which optimizer group, and the table that shows it."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from tabulate import tabulate
from torch import nn

from videomind.model.disk_format import peft_to_ours

# Order of the groups: these three, each with and without weight decay.
KINDS = ("base", "lora", "head")


def parameter_kind(name: str) -> str:
    """Tell by a parameter's name whether it is of the `head`, of a `lora`, or of the `base`."""
    inner = peft_to_ours(name)
    if inner.startswith("head."):
        return "head"
    return "lora" if "lora_" in inner else "base"


def decayed_names(model: nn.Module) -> set[str]:
    """Name the parameters that weight decay applies to: all but biases and norms."""
    norms = {name for name, module in model.named_modules() if "norm" in type(module).__name__.lower()}
    return {
        name
        for name, _ in model.named_parameters()
        if not name.endswith("bias") and name.rpartition(".")[0] not in norms
    }


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    lora_lr: float | None = None,
    head_lr: float | None = None,
) -> list[dict]:
    """Sort every trainable parameter into exactly one optimizer group.

    Args:
        model: bare or wrapped by PEFT.
        lr: of the base.
        weight_decay: of the decayed groups.
        lora_lr, head_lr: `lr` unless given.

    Returns:
        Six groups of params, names, lr, weight_decay, in the order of KINDS, decayed first; empty ones are
        kept.
    """
    rates = {"base": lr, "lora": lora_lr, "head": head_lr}
    rates = {kind: lr if rate is None else rate for kind, rate in rates.items()}
    decayed = decayed_names(model)
    groups = {
        (kind, decays): {
            "params": [],
            "names": [],
            "lr": rates[kind],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for kind in KINDS
        for decays in (True, False)
    }
    for name, param in model.named_parameters():
        if param.requires_grad:
            group = groups[parameter_kind(name), name in decayed]
            group["params"].append(param)
            group["names"].append(name)
    return list(groups.values())


def trainable_table(model: nn.Module, towers: Mapping[str, str] = MappingProxyType({})) -> str:
    """Tell of each part of the model how many parameters it has, how many train, and an example shape.

    Args:
        model: bare or wrapped by PEFT.
        towers: modules whose sub-modules are told apart, and how each is called in the table.
    """
    parts: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, param in model.named_parameters():
        parts.setdefault(_part(name, towers), []).append((name, param))
    rows = [[part, *_counts(p for _, p in params), _shape(params[0][1])] for part, params in parts.items()]
    total, trains = _counts(model.parameters())
    rows.append(["total", total, trains, f"{trains / max(total, 1):.2%} trains"])
    return tabulate(rows, headers=["module", "parameters", "trainable", "first shape"], intfmt=",")


def _part(name: str, towers: Mapping[str, str]) -> str:
    inner = peft_to_ours(name)
    for module, tower in towers.items():
        if inner.startswith(f"{module}."):
            inner = tower + inner.removeprefix(module)
    pieces = inner.split(".")
    if "lora_" in inner:
        return f"LoRA ({pieces[0]})"
    depth = 2 if pieces[0] in (*towers.values(), "head") else 1
    copy = " (trained copy)" if "modules_to_save" in pieces else ""
    return ".".join(pieces[:depth]) + copy


def _counts(params: Iterable[nn.Parameter]) -> tuple[int, int]:
    total = trains = 0
    for param in params:
        size = getattr(param, "ds_numel", param.numel())  # ZeRO-3 leaves an empty tensor
        total += size
        trains += size * param.requires_grad
    return total, trains


def _shape(param: nn.Parameter) -> tuple[int, ...]:
    return tuple(getattr(param, "ds_shape", param.shape))
