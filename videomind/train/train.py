"""Trains a role: `torchrun ... videomind/train/train.py --role grounder ...` (see scripts/pretrain).

Rerunning the same command continues from the newest complete checkpoint.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from peft import PeftModel
from transformers import set_seed

from videomind.backbones.backbone import Processor
from videomind.device import attention, detect
from videomind.encoding.encoder import Encoder
from videomind.model.adapters import add_adapter, bare
from videomind.model.checkpoint import (
    LoadedModel,
    LoadSettings,
    is_role_checkpoint,
    load_model,
    merge_adapter,
)
from videomind.model.losses import has_positive
from videomind.model.saving import save_full
from videomind.roles import get_role
from videomind.train.arguments import Arguments, parse_arguments, weight_dtype
from videomind.train.mixture import Mixture
from videomind.train.optim import trainable_table
from videomind.train.role_trainer import RoleTrainer, group_sampler
from videomind.train.sampler import EpochSampler
from videomind.train.trainer import init_communication, run_training

log = logging.getLogger(__name__)


def build_model(args: Arguments) -> LoadedModel:
    """Load what training starts from, and let train what the arguments say."""
    role, dtype = get_role(args.model.role), weight_dtype(args.training)
    settings = LoadSettings(
        dtype=dtype,
        attn_implementation=attention(args.model.attn_implementation, detect().kind, dtype),
        base_path=args.model.base_model_path,
        base_model=args.model.base_model,
    )
    loaded = load_model(args.model.model_name_or_path, settings, roles=_start_roles(args))
    model = loaded.model
    if isinstance(model, PeftModel) and (args.custom.merge_adapter or not args.custom.lora_enable):
        model = merge_adapter(model)
    if role.has_head and bare(model).head is None:
        bare(model).add_head()
    bare(model).loss_weights = args.custom.loss_weights()
    model.requires_grad_(False)
    if isinstance(model, PeftModel):
        model.set_adapter(role.name)  # trainable again
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
    if args.training.deepspeed is None:
        for param in model.parameters():
            if param.requires_grad:  # master weights; the forward casts under autocast
                param.data = param.data.float()
    return replace(loaded, model=model)


def _start_roles(args: Arguments) -> list[str] | None:
    """The adapter to go on training when starting from a role checkpoint."""
    folder = Path(args.model.model_name_or_path)
    if (folder / "config.json").is_file() and is_role_checkpoint(folder):
        return [args.model.role] if (folder / args.model.role).is_dir() else []
    return None


def build_mixture(args: Arguments, processor: Processor) -> Mixture:
    """The training set; its statistics go to the log."""
    data = args.data
    mixture = Mixture(
        data.datasets,
        encoder=Encoder(processor, max_length=data.model_max_length, is_learnable=has_positive),
        data_root=data.data_root,
        filters=data.filters(),
        seed=args.training.seed,
        max_retries=data.max_retries,
        on_damage=data.on_damage,
        budget=data.budget(),
    )
    log.info("Training set:\n%s", mixture.statistics())
    return mixture


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
    mixture = build_mixture(args, loaded.processor)
    trainer = RoleTrainer(args, loaded, mixture, sampler=make_sampler(args, mixture))
    trainer.run_to_end(after=lambda: _save_full(args, loaded) if args.custom.save_full_model else None)


def _save_full(args: Arguments, loaded: LoadedModel) -> None:
    """Write the whole model, merged."""
    model = loaded.model
    merged = merge_adapter(model) if isinstance(model, PeftModel) else model
    save_full(merged, Path(args.training.output_dir) / "full", loaded.processor)


def main(argv: Sequence[str] | None = None) -> int:
    """Command-line entry. Returns the exit code: 2 for arguments or data that cannot be used."""
    return run_training(lambda: parse_arguments(argv), train)


if __name__ == "__main__":
    sys.exit(main())
