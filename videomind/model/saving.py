"""Writes checkpoints in the published layout: an adapter, a role, a whole model."""

from pathlib import Path

from huggingface_hub import save_torch_state_dict
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig

from videomind.backbones.backbone import Processor
from videomind.files import atomic_files, read_json, write_json
from videomind.model.adapters import adapter_biases, bare, in_adapter
from videomind.model.bases import Base
from videomind.model.checkpoint import ADAPTER_FILES, EXTRA_FILE, adapter_state
from videomind.model.disk_format import (
    ADAPTER_FIELDS,
    PEFT_PREFIX,
    base_config,
    ours_to_published,
    peft_to_ours,
    role_config,
)
from videomind.model.role_model import RoleModel
from videomind.model.tensors import save_tensors


def save_adapter(model: PeftModel, role: str, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """Write `<folder>/<role>/` in the published layout.

    Args:
        model: that holds the adapter.
        role: whose adapter it is.
        folder: of the role checkpoint.
        state: gathered parameters by name where the module's own are sharded.
    """
    out, backbone = folder / role, bare(model).backbone
    own = adapter_state(model, role, state)
    tensors = {ours_to_published(k, backbone): v for k, v in own.items()}
    save_tensors(tensors, out / ADAPTER_FILES[1])
    config = model.peft_config[role].to_dict()
    config["inference_mode"] = True
    config["base_model_name_or_path"] = bare(model).config.name_or_path
    for name in ("target_modules", "modules_to_save"):
        if config.get(name):
            config[name] = sorted(ours_to_published(module, backbone) for module in config[name])
    fields = [
        *ADAPTER_FIELDS,
        *(["trainable_token_indices"] if config.get("trainable_token_indices") else []),
    ]
    write_json(out / ADAPTER_FILES[0], {name: config[name] for name in fields if name in config})


def extra_names(model: RoleModel | PeftModel, *, tables: bool = False) -> list[str]:
    """Name the parameters that a role checkpoint keeps outside the adapter.

    They are the head, what else trains, and what else is not as the base has it.

    Args:
        model: the one that is saved.
        tables: also keep both embedding tables (they grew, and no adapter holds them).
    """
    inner = bare(model)
    held = adapter_biases(model, model.active_adapter) if isinstance(model, PeftModel) else ()
    names = []
    for name, param in model.named_parameters():
        if in_adapter(name) or name in held:
            continue
        ours = peft_to_ours(name)
        is_table = tables and name.split(".")[-2] in inner.backbone.tables
        if ours.startswith("head.") or param.requires_grad or ours in inner.changed or is_table:
            names.append(name)
    return names


def save_role(
    model: RoleModel | PeftModel,
    folder: str | Path,
    *,
    role: str,
    processor: Processor,
    base_path: str,
    base: Base | None = None,
    model_path: str | None = None,
    state: dict[str, Tensor] | None = None,
    tables: bool = False,
) -> None:
    """Write a role checkpoint in the published layout.

    Args:
        model: bare or wrapped by PEFT.
        folder: to write.
        role: whose adapter and config it is.
        processor: of the model.
        base_path: recorded as `base_model_path`.
        base: what else is known of it.
        model_path: what training started from.
        state: gathered parameters by name where the module's own are sharded.
        tables: see `extra_names`.
    """
    folder = Path(folder)
    inner = bare(model)
    tensors = state if state is not None else dict(model.named_parameters())
    if isinstance(model, PeftModel):
        save_adapter(model, role, folder, state)
    kept = [name for name in extra_names(model, tables=tables) if name in tensors]
    if kept:
        prefix = PEFT_PREFIX if isinstance(model, PeftModel) else ""
        save_tensors(
            {prefix + ours_to_published(peft_to_ours(name), inner.backbone): tensors[name] for name in kept},
            folder / EXTRA_FILE,
        )
    write_json(
        folder / "config.json",
        role_config(
            inner.config,
            inner.backbone,
            role=role,
            base_model=inner.backbone.name,
            conv_type=inner.backbone.conv_type,
            base_model_path=base_path,
            base_revision=base and base.revision,
            base_fingerprint=base and base.fingerprint,
            model_name_or_path=model_path or base_path,
            reg_token_id=inner.config.reg_token_id,
            seg_s_token_id=inner.config.seg_s_token_id,
            seg_e_token_id=inner.config.seg_e_token_id,
        ),
    )
    _save_generation_config(inner, processor, folder)
    processor.backbone.save_processor(processor, folder)


def _save_generation_config(model: RoleModel, processor: Processor, folder: Path) -> None:
    stored = processor.source / "generation_config.json"
    config = (
        read_json(stored) if stored.is_file() else GenerationConfig.from_model_config(model.config).to_dict()
    )
    write_json(folder / "generation_config.json", config)


def save_full(
    model: RoleModel,
    folder: str | Path,
    processor: Processor,
    shard_size: str = "5GB",
    *,
    whole: dict[str, Tensor] | None = None,
) -> None:
    """Write a whole model as a base: sharded safetensors under published names, flat config, tokenizer.

    A grounding head goes into a file of its own beside it, and is found there when the folder is loaded.

    Args:
        model: without adapters.
        folder: where to.
        processor: of the model.
        shard_size: of a file at most.
        whole: the model's tensors by name where its own are sharded.
    """
    folder = Path(folder)
    head: dict[str, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, value in (model.state_dict() if whole is None else whole).items():
        part = head if name.startswith("head.") else state
        part[ours_to_published(name, model.backbone)] = value
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    with atomic_files(folder, replaces="model*.safetensors*") as temporary:
        save_torch_state_dict(
            state, temporary, filename_pattern="model{suffix}.safetensors", max_shard_size=shard_size
        )
    if head:
        save_tensors(head, folder / EXTRA_FILE)
    write_json(folder / "config.json", base_config(model.config, model.backbone))
    _save_generation_config(model, processor, folder)
    processor.backbone.save_processor(processor, folder)
