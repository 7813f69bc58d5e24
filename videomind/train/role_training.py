"""Trains a role: what `videomind train` does once its arguments are parsed."""

import logging
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import set_seed

from videomind.backbones.backbone import Processor
from videomind.device import attention, detect
from videomind.encoding.encoder import Encoder
from videomind.model.adapters import adapter_biases, adapter_settings, add_adapter, bare
from videomind.model.bases import resolve_folder
from videomind.model.checkpoint import (
    MEND,
    LoadedModel,
    LoadSettings,
    is_role_checkpoint,
    load_model,
    saved_roles,
)
from videomind.model.losses import has_positive
from videomind.model.merging import merge_adapter
from videomind.model.role_model import RoleModel, num_positions
from videomind.model.saving import save_full
from videomind.model.tensors import copy_to_cpu, unify_dtype
from videomind.roles import Role, get_role
from videomind.train.command_line.arguments import Arguments, weight_dtype
from videomind.train.command_line.inherited import refuse_other_adapter
from videomind.train.command_line.options import DataArguments
from videomind.train.mixture import Mixture
from videomind.train.optim import trainable_table
from videomind.train.role_trainer import RoleTrainer, group_sampler
from videomind.train.running import init_communication
from videomind.train.sampler import EpochSampler
from videomind.video.frame_cache import FrameCache

log = logging.getLogger(__name__)

FULL = "full"  # folder of the whole model, in the output folder


def build_model(args: Arguments) -> LoadedModel:
    """Load what training starts from, and let train what the arguments say.

    | training starts from             | --lora_enable | --merge_adapter | what learns                      |
    |----------------------------------|---------------|-----------------|----------------------------------|
    | a base model                     | True          |                 | a new adapter                    |
    | a checkpoint of this role        | True          | False           | its adapter goes on              |
    | a checkpoint of this role        | True          | True            | a new one, on the merged weights |
    | a checkpoint of other roles      | True          |                 | a new one; theirs are not loaded |
    | any (an adapter is merged first) | False         |                 | both word tables, no adapter     |

    The grounding head learns too where the role has one, the vision merger with
    `--tuning_modules projector`.

    Args:
        args: of the command line.

    Raises:
        ValueError: The weights do not fit, see `load_model`.
    """
    role, dtype = get_role(args.model.role), weight_dtype(args.training)
    loaded = _load_start(args, role, dtype)
    model = _choose_what_trains(loaded.model, args, role)
    unify_dtype(model, dtype)
    if args.training.deepspeed is None:
        for param in model.parameters():
            if param.requires_grad:  # master weights; the forward casts under autocast
                param.data = param.data.float()
    return replace(loaded, model=model)


def _load_start(args: Arguments, role: Role, dtype: torch.dtype) -> LoadedModel:
    """Load what training starts from, with a head where the role has one; what is to be merged is."""
    settings = LoadSettings(
        dtype=dtype,
        attn_implementation=attention(args.model.attn_implementation, detect().kind, dtype),
        base_path=args.model.base_model_path,
        base_model=args.model.base_model,
        device=args.training.device,
    )
    start = resolve_folder(args.model.model_name_or_path, "model", MEND)
    loaded = load_model(start, settings, roles=_start_roles(start, role.name))
    model = loaded.model
    if args.custom.merge_adapter and not isinstance(model, PeftModel):
        raise ValueError(
            f"--merge_adapter: {args.model.model_name_or_path} has no adapter of the {role.name} to fold in"
        )
    if isinstance(model, PeftModel):
        if args.custom.merge_adapter or not args.custom.lora_enable:
            model = merge_adapter(model)
        else:
            saved = adapter_settings(model, role.name)
            own = {name: getattr(args.custom, name) for name in args.names & saved.keys()}
            refuse_other_adapter(own, saved, args.model.model_name_or_path)
    if not role.has_head:
        bare(model).head = None  # of another role, from whose folder this one starts
    elif bare(model).head is None:
        bare(model).add_head()
    return replace(loaded, model=model)


def _choose_what_trains(model: RoleModel | PeftModel, args: Arguments, role: Role) -> RoleModel | PeftModel:
    """Let train what the arguments say; a new adapter is added where one is wanted."""
    bare(model).loss_weights = args.custom.loss_weights()
    model.requires_grad_(False)
    if isinstance(model, PeftModel):
        model.set_adapter(role.name)  # trainable again
        for name in adapter_biases(model, role.name):
            model.get_parameter(name).requires_grad_(True)
    elif args.custom.lora_enable:
        model = add_adapter(model, role, args.custom.lora())
    else:
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.requires_grad_(True)
    if role.has_head:
        bare(model).head.requires_grad_(True)
        bare(model).head.set_droppath(args.custom.head_droppath)
    if args.custom.tuning_modules == "projector":
        bare(model).get_submodule(bare(model).backbone.merger).requires_grad_(True)
    return model


def _start_roles(folder: Path, role: str) -> list[str] | None:
    """Name the adapter to go on training when starting from a role checkpoint."""
    if not (folder / "config.json").is_file() or not is_role_checkpoint(folder):
        return None
    saved = saved_roles(folder)
    if role not in saved:
        log.info("%s has no adapter of the %s (it has %s): a new one starts", folder, role, saved)
    return [role] if role in saved else []


def build_mixture(args: Arguments, processor: Processor, *, positions: float = math.inf) -> Mixture:
    """Make the training set; its statistics go to the log.

    Args:
        args: of the command line.
        processor: of the model.
        positions: that the model has; a longer sample is a bad one.
    """
    data = args.data
    max_length = min(data.model_max_length, positions)
    mixture = Mixture(
        data.datasets,
        encoder=Encoder(processor, max_length=max_length, is_learnable=has_positive),
        data_root=data.data_root,
        filters=data.filters(),
        seed=args.training.seed,
        max_retries=data.max_retries,
        on_damage=data.on_damage,
        budget=data.budget(),
        kept=_frame_cache(data),
    )
    log.info("Training set:\n%s", mixture.statistics())
    return mixture


def _frame_cache(data: DataArguments) -> FrameCache | None:
    if data.cache_frames is None:
        return None
    return FrameCache(data.cache_frames, max_gb=data.cache_frames_gb)


def train(
    args: Arguments, *, make_sampler: Callable[[Arguments, Mixture], EpochSampler] = group_sampler
) -> None:
    """Run a training to its end and write the role checkpoint to `--output_dir`.

    Args:
        args: of the command line.
        make_sampler: gives the order of samples.
    """
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(Path(args.training.output_dir) / "tensorboard"))
    init_communication(args.training)
    set_seed(args.training.seed)
    loaded = build_model(args)
    backbone = loaded.processor.backbone
    towers = {backbone.vision: "vision", backbone.language: "language"}
    log.info("What trains:\n%s", trainable_table(loaded.model, towers))
    mixture = build_mixture(args, loaded.processor, positions=num_positions(bare(loaded.model)))
    trainer = RoleTrainer(args, loaded, mixture, sampler=make_sampler(args, mixture))
    trainer.run_to_end(after=lambda: _save_full(args, loaded) if args.custom.save_full_model else None)


def _save_full(args: Arguments, loaded: LoadedModel) -> None:
    """Write the whole model, merged; every process takes part, the first one writes."""
    model, should_write = loaded.model, args.training.should_save
    merged = merge_adapter(model) if isinstance(model, PeftModel) else model
    state = merged.state_dict(keep_vars=True)
    whole = copy_to_cpu(state, weight_dtype(args.training), should_keep=should_write)
    if should_write:
        save_full(merged, Path(args.training.output_dir) / FULL, loaded.processor, whole=whole)
