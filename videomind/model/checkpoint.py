"""The one disk layout of role checkpoints: load and save, with full accounting of every tensor.

A role checkpoint holds config, tokenizer and pixel files, `<role>/adapter_*` per role, and
`pytorch_model.safetensors` with whatever else trained: the grounding head, and where they apply the
embedding tables and the vision merger.
"""

import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from videomind.backbones.backbone import Backbone, Processor
from videomind.backbones.registry import load_processor, recognise
from videomind.files import read_json
from videomind.model.adapters import adapter_biases, bare, check_new_rows
from videomind.model.bases import Base, find_base, resolve_folder
from videomind.model.disk_format import (
    LORA_FIELDS,
    base_key_mapping,
    peft_to_ours,
    published_to_ours,
)
from videomind.model.merging import (
    merge_adapter,  # noqa: F401 - its old place
    table_modules,
    untie,
)
from videomind.model.role_model import RoleModel, role_class
from videomind.model.tensors import changed, compare, gathered, read_tensors, refuse
from videomind.roles import ROLES, SPECIAL_TOKENS, get_role

log = logging.getLogger(__name__)

M = TypeVar("M", bound=PreTrainedModel)
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MEND = "Download it (model_zoo/README.md) or give another path with --model_name_or_path."
EXTRA_FILE = "pytorch_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """How weights are loaded.

    Attributes:
        dtype: of the weights.
        attn_implementation: sdpa, flash_attention_2 or eager.
        base_path: used instead of the `base_model_path` of a role checkpoint's config.
        base_model: name of the backbone that it must be; None takes what the folder says.
        device: where to; each tensor is read from its file straight to there. None is the CPU, where weights
            that keep their type are the file's own pages, which all processes share.
    """

    dtype: torch.dtype = torch.float32
    attn_implementation: str = "sdpa"
    base_path: str | None = None
    base_model: str | None = None
    device: torch.device | None = None

    def read(
        self, kind: type[M], folder: Path, *, config: PreTrainedConfig, key_mapping: dict[str, str] | None
    ) -> tuple[M, dict[str, list[str]]]:
        """Read a model's weights.

        Args:
            kind: class of the model.
            folder: holds its weights.
            config: of the model.
            key_mapping: patterns of names in the files to names of the model.

        Returns:
            The model, and which tensors are missing, unexpected or mismatched, for `refuse`.
        """
        model, loading = kind.from_pretrained(
            folder,
            config=config,
            key_mapping=key_mapping,
            output_loading_info=True,
            dtype=self.dtype,
            attn_implementation=self.attn_implementation,
            device_map=self._placement(),
        )
        vars(model).pop("hf_device_map", None)  # a trainer would take it for a model over several devices
        problems = ("missing", "unexpected", "mismatched")
        return model, {name: sorted(map(str, loading[f"{name}_keys"])) for name in problems}

    def _placement(self) -> dict[str, torch.device] | None:
        """Write the device as transformers wants it; ZeRO-3 places its parts itself."""
        if self.device is None or self.device.type == "cpu" or is_deepspeed_zero3_enabled():
            return None
        return {"": self.device}


def is_role_checkpoint(folder: Path) -> bool:
    """Tell whether a folder holds a role checkpoint rather than a base model."""
    return read_json(folder / "config.json").get("model_type") == recognise(folder).role_type


def saved_roles(folder: Path) -> list[str]:
    """List the roles whose adapters a folder holds."""
    return [name for name in ROLES if (folder / name / ADAPTER_FILES[0]).is_file()]


def load_base(folder: Path, settings: LoadSettings, processor: Processor) -> RoleModel:
    """Load a base model without a head; its tables are as long as its vocabulary.

    Raises:
        ValueError: Tensors are missing, unexpected or of another shape (lists them), or the folder is of
            another backbone than the processor.
    """
    backbone = processor.backbone
    if (own := recognise(folder)) is not backbone:
        raise ValueError(f"{folder} is a {own.name}, {processor.source} wants a {backbone.name}")
    config = backbone.load_config(folder)
    names = ("reg_token_id", "seg_s_token_id", "seg_e_token_id")
    for name, token in zip(names, SPECIAL_TOKENS, strict=True):
        setattr(config, name, processor.token_id(token))
    if config.video_token_id != (video_token := processor.token_id(backbone.video_token)):
        raise ValueError(
            f"{folder / 'config.json'}: video_token_id is {config.video_token_id}, but the tokenizer in "
            f"{processor.source} has {backbone.video_token} at {video_token}"
        )
    model, problems = settings.read(
        role_class(backbone), folder, config=config, key_mapping=base_key_mapping(backbone)
    )
    refuse(problems, folder)
    return model


def grow_tables(model: RoleModel, num_tokens: int) -> bool:
    """Make room for every token; in both tables the special ones start as the mean of all rows before them.

    They are the last tokens. A spare row of the base that one of them falls on is overwritten, as in
    published training.

    Args:
        model: whose tables they are.
        num_tokens: the tokenizer's size.

    Returns:
        Whether the tables were too short.
    """
    old = model.config.get_text_config().vocab_size
    if num_tokens <= old:
        return False
    model.resize_token_embeddings(num_tokens, mean_resizing=False)
    first = num_tokens - len(SPECIAL_TOKENS)
    for table in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        with torch.no_grad(), gathered([table], modify=True):
            table[first:] = table[:first].float().mean(dim=0).to(table.dtype)
    log.info("Grew the embedding tables from %d to %d rows for the new tokens", old, num_tokens)
    return True


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A role model ready for use.

    Attributes:
        model: wrapped by PEFT if it has adapters.
        processor: its inputs' maker.
        base_folder: where the base lies that it stands on.
        base: what a checkpoint of the model records of that base.
        tables_grew: whether the base's tables were too short for the special tokens.
    """

    model: RoleModel | PeftModel
    processor: Processor
    base_folder: Path
    base: Base
    tables_grew: bool


def load_model(path: str | Path, settings: LoadSettings, roles: Iterable[str] | None = None) -> LoadedModel:
    """Load a base model or a role checkpoint for inference or further training.

    Args:
        path: folder or hub id.
        settings: dtype, attention, base override.
        roles: adapters to load from a role checkpoint; None loads all that it holds.

    Raises:
        ValueError: Something is missing, unexpected or unknown; says what, and where.
    """
    folder = resolve_folder(path, "model", MEND)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder.absolute()} has no config.json: it is not a model folder. {MEND}")
    backbone = recognise(folder)
    if settings.base_model is not None and settings.base_model != backbone.name:
        raise ValueError(
            f"{folder} is of the backbone {backbone.name}, not {settings.base_model} (--base_model)"
        )
    is_role = is_role_checkpoint(folder)
    base_folder, base = find_base(folder, settings.base_path) if is_role else (folder, Base.of(folder))
    processor = load_processor(folder)
    model = load_base(base_folder, settings, processor)
    if base.revision is not None:
        model.config.name_or_path = base.name  # not a path in this machine's cache of the hub
    grew = grow_tables(model, len(processor.tokenizer))
    if is_role:
        names = saved_roles(folder) if roles is None else [get_role(name).name for name in roles]
        for role in names:
            model = load_adapter(model, folder, role)
        load_extra(model, folder, names or [read_json(folder / "config.json")["role"]])
    elif (folder / EXTRA_FILE).is_file():
        load_extra(model, folder, [])
    return LoadedModel(model=model, processor=processor, base_folder=base_folder, base=base, tables_grew=grew)


def model_folders(path: str | Path, base_path: str | None = None, *, what: str = "model") -> list[Path]:
    """Find the folders whose files a model is loaded from.

    Args:
        path: folder or hub id of a role checkpoint, or of a base model.
        base_path: used instead of the base that the checkpoint names.
        what: it is, for messages.

    Returns:
        Its folder; and, of a role checkpoint, that of the base which it stands on.

    Raises:
        ValueError: one is not there.
    """
    folder = resolve_folder(path, what, "Download it (model_zoo/README.md) or give another path.")
    if not (folder / "config.json").is_file() or not is_role_checkpoint(folder):
        return [folder]
    return [folder, find_base(folder, base_path)[0]]


def load_adapter(model: RoleModel | PeftModel, folder: Path, role: str) -> PeftModel:
    """Attach one saved adapter, frozen and active.

    Args:
        model: bare, or with other adapters.
        folder: of the role checkpoint.
        role: whose sub-folder is read.

    Raises:
        ValueError: Tensors are missing, unexpected or mismatched (lists them).
    """
    for name in ADAPTER_FILES:
        if not (folder / role / name).is_file():
            held = ", ".join(saved_roles(folder)) or "none"
            raise ValueError(f"{folder} has no adapter for the {role} ({role}/{name}). It holds: {held}.")
    config = _read_adapter_config(folder / role / ADAPTER_FILES[0], bare(model).backbone)
    check_new_rows(config)
    others = getattr(model, "peft_config", {})
    if others and any(each.bias != "none" for each in (config, *others.values())):
        raise ValueError(
            f"{folder}: adapters of {', '.join((*others, role))} cannot be used together: biases that one "
            "of them trained (--lora_bias) are the base's, which all of them share"
        )
    with warnings.catch_warnings():
        # Published adapters hold both tables, trained apart, on tied bases too: this is meant.
        warnings.filterwarnings("ignore", message=".*ensure_weight_tying.*")
        if isinstance(model, PeftModel):
            model.add_adapter(role, config)
        else:
            model = get_peft_model(model, config, adapter_name=role)
    _fill_adapter(model, folder, role)
    model.set_adapter(role)
    model.requires_grad_(False)
    return model


def _fill_adapter(model: PeftModel, folder: Path, role: str) -> None:
    """Put saved values into an adapter that is there."""
    backbone = bare(model).backbone
    saved = read_tensors(folder / role / ADAPTER_FILES[1])
    state = {published_to_ours(k, backbone): v for k, v in saved.items()}
    biases = adapter_biases(model, role)
    own = [p for n, p in model.named_parameters() if n in biases or f".modules_to_save.{role}." in n]
    with gathered(own, modify=True):
        refuse(compare(adapter_state(model, role), state), folder / role)
        set_peft_model_state_dict(model, state, adapter_name=role)


def restore_role(model: RoleModel | PeftModel, folder: Path, role: str) -> None:
    """Put a role checkpoint's values into a model that is set up for that role already."""
    if isinstance(model, PeftModel):
        _fill_adapter(model, folder, role)
    load_extra(model, folder, [role])


def _read_adapter_config(path: Path, backbone: Backbone) -> LoraConfig:
    """Read PEFT's config, with our module names."""
    stored = read_json(path)
    fields = {name: stored[name] for name in LORA_FIELDS if stored.get(name) is not None}
    if isinstance(fields.get("target_modules"), list):
        fields["target_modules"] = [published_to_ours(name, backbone) for name in fields["target_modules"]]
    return LoraConfig(**fields)


def load_extra(model: RoleModel | PeftModel, folder: Path, roles: list[str], *, keep: bool = False) -> None:
    """Load the head and whatever else trained outside the adapters.

    Args:
        model: gets a head if the folder has one.
        folder: of the checkpoint.
        roles: that it plays; a role that grounds needs the head.
        keep: refuse tensors that would change what another checkpoint brought or the base holds, as the
            roles share it.

    Raises:
        ValueError: The head is missing, a tensor does not fit, or `keep` forbids it.
    """
    path = folder / EXTRA_FILE
    needs_head = any(get_role(role).has_head for role in roles)
    if not path.is_file():
        if needs_head:
            raise ValueError(f"{folder} has no {EXTRA_FILE}, which holds the grounding head of {roles}")
        return
    inner = bare(model)
    saved = read_tensors(path)
    state = {peft_to_ours(published_to_ours(k, inner.backbone)): v for k, v in saved.items()}
    new_head = inner.head is None and any(k.startswith("head.") for k in state)
    if new_head:
        inner.add_head()
    tables = [state[name] for name in table_modules(inner) if name in state]
    if len(tables) == 2 and not torch.equal(*tables):
        untie(inner)
    own = {peft_to_ours(name): param for name, param in inner.named_parameters(remove_duplicate=False)}
    expected = {k: own[k] for k in own if k in state or k.startswith("head.")}
    refuse(compare(expected, state), path)
    shared = {k: v for k, v in state.items() if not (new_head and k.startswith("head."))}
    if keep and (names := changed(own, shared)):
        raise ValueError(
            f"{path} changes {', '.join(names[:4])}, which the roles of other checkpoints share. "
            "Use roles that were trained together, or adapters alone."
        )
    for name, value in state.items():  # one at a time: a sharded model may not fit on one device
        with torch.no_grad(), gathered([own[name]], modify=True):
            own[name].copy_(value)
    inner.changed |= {name for name in state if not name.startswith("head.")}


def adapter_state(model: PeftModel, role: str, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Give an adapter's tensors as PEFT saves them, by our names; the head's biases are the head's."""
    saved = get_peft_model_state_dict(model, state_dict=state, adapter_name=role, save_embedding_layers=False)
    named = {published_to_ours(k, bare(model).backbone): v for k, v in saved.items()}
    return {name: v for name, v in named.items() if not peft_to_ours(name).startswith("head.")}
