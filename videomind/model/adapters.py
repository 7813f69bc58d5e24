"""LoRA adapters: which layers they wrap, what trains beside them, and how a role's adapter is made.

One PEFT adapter per role, named after it. The grounding head never gets LoRA, nor does `lm_head`, which
some roles train as a full copy.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from videomind.device import detect
from videomind.model.disk_format import peft_to_ours
from videomind.model.role_model import RoleModel
from videomind.model.settings import LORA_TYPES, LoraSettings
from videomind.roles import Role


def lora_targets(model: RoleModel, lora_type: str) -> list[str]:
    """Name the layers that get LoRA, in module order.

    Raises:
        ValueError: The type is unknown.
    """
    if lora_type not in LORA_TYPES:
        raise ValueError(
            f"Unknown LoRA type {lora_type!r} (--lora_type). Allowed: {', '.join(sorted(LORA_TYPES))}."
        )
    attention_only, with_vision = LORA_TYPES[lora_type]
    backbone = model.backbone
    roots = (f"{backbone.language}.", f"{backbone.vision}.") if with_vision else (f"{backbone.language}.",)
    names = [
        name.removesuffix(".base_layer")  # as it is called where LoRA wraps it already
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not in_adapter(name)
    ]
    return [
        name
        for name in names
        if name.startswith(roots) and (not attention_only or name.endswith(backbone.attention_layers))
    ]


def adapter_settings(model: PeftModel, role: str) -> dict[str, str | int | float | bool]:
    """Say with which arguments of training a role's adapter was made, argument to value."""
    config = model.peft_config[role]
    # Not by the configuration's names: PEFT shortens a long list of them.
    layers = {name for name, module in bare(model).named_modules() if role in getattr(module, "lora_A", ())}
    types = [kind for kind in LORA_TYPES if set(lora_targets(bare(model), kind)) == layers]
    return {
        "lora_type": types[0] if types else f"of {len(layers)} layers",
        "lora_r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "lora_bias": config.bias,
        "train_new_tokens_only": bool(config.trainable_token_indices),
    }


def add_adapter(model: RoleModel, role: Role, settings: LoraSettings) -> PeftModel:
    """Wrap the model with a fresh, trainable adapter for a role."""
    new_ids = [model.config.reg_token_id, model.config.seg_s_token_id, model.config.seg_e_token_id]
    tables = model.backbone.tables
    full_tables = role.trains_tables and not settings.new_tokens_only
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        bias=settings.bias,
        target_modules=lora_targets(model, settings.lora_type),
        modules_to_save=list(tables) if full_tables else None,
        trainable_token_indices=(
            dict.fromkeys(tables, new_ids) if role.trains_tables and settings.new_tokens_only else None
        ),
    )
    check_new_rows(config)
    with warnings.catch_warnings():
        # Published adapters hold both tables, trained apart, on tied bases too: this is meant.
        warnings.filterwarnings("ignore", message=".*ensure_weight_tying.*")
        return get_peft_model(model, config, adapter_name=role.name)


def check_new_rows(config: LoraConfig) -> None:
    """Refuse an adapter of new rows alone where PEFT cannot make it: sharded by ZeRO-3 and without CUDA.

    Raises:
        ValueError: The adapter has such rows, and this is the place.
    """
    if config.trainable_token_indices and is_deepspeed_zero3_enabled() and detect().kind != "cuda":
        raise ValueError(
            "Rows of the new tokens alone (--train_new_tokens_only) cannot train under ZeRO-3 here: "
            "PEFT gathers them on CUDA devices only. Use DEEPSPEED=zero2, or train the whole tables."
        )


def bare(model: nn.Module) -> RoleModel:
    """Take a role model out of its PEFT wrapper, or give the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextmanager
def adapter(model: nn.Module, role: str | None) -> Iterator[nn.Module]:
    """Run a block under one role's adapter, or under the bare base model for None.

    The adapter that was active before, with its own copies of the tables, is active again afterwards.
    """
    if not isinstance(model, PeftModel):
        yield model
        return
    before = model.active_adapter
    if role is None:
        with model.disable_adapter():
            yield model
        return
    if role not in model.peft_config:
        raise ValueError(f"No adapter {role!r} is loaded. Loaded: {', '.join(model.peft_config)}.")
    model.set_adapter(role)
    try:
        yield model
    finally:
        model.set_adapter(before)


def in_adapter(name: str) -> bool:
    """Tell whether a parameter belongs to an adapter."""
    return any(mark in name for mark in ("lora_", ".modules_to_save.", ".token_adapter.trainable_tokens_"))


def adapter_biases(model: PeftModel, role: str) -> set[str]:
    """Name the base's biases that a role's adapter holds (`--lora_bias`), as they are called in `model`.

    The grounding head's are the head's own, though PEFT counts every bias of a model when all are to train.
    """
    kind = model.peft_config[role].bias
    names = {
        name
        for name, _ in model.named_parameters()
        if name.endswith(".bias") and not in_adapter(name) and not peft_to_ours(name).startswith("head.")
    }
    if kind == "all":
        return names
    return {name for name in names if ".base_layer." in name and kind == "lora_only"}
