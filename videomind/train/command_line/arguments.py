"""Command-line arguments of training; whatever is not here is transformers' TrainingArguments."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

import torch
from transformers import HfArgumentParser
from transformers import TrainingArguments as HfTrainingArguments
from transformers.integrations import get_available_reporting_integrations

from videomind.backbones.registry import get_backbone
from videomind.dataset.parts import Entry, is_file_name, open_source, parse_entries
from videomind.device import detect, prepare_process
from videomind.model.grounding_head import check_frames
from videomind.model.settings import LORA_TYPES
from videomind.roles import get_role, nearest
from videomind.runs.recipes import expand, given_arguments, recipe_text
from videomind.train.command_line.inherited import (
    default_of,
    refuse_missing_reporters,
    refuse_unknown,
    refuse_unused,
    refuse_zeros,
    todays,
)
from videomind.train.command_line.options import (
    CustomArguments,
    DataArguments,
    ModelArguments,
    TrainingOptions,
    section_of,
)

TUNING_MODULES = ("projector",)
# What only an adapter or a grounding head has.
LORA_OPTIONS = ("lora_type", "lora_r", "lora_alpha", "lora_dropout", "lora_bias", "lora_lr",
                "train_new_tokens_only")  # fmt: skip
HEAD_OPTIONS = ("head_lr", "head_droppath", "loss_cls_weight", "loss_reg_weight", "loss_sal_weight")
# Arguments that are files or folders: those that a run makes, and those that may be a name of something else.
NEW_PLACES = ("output_dir", "cache_frames")
PLACES = ("model_name_or_path", "base_model_path", "data_root", "deepspeed", "data_path", "video_folder",
          "vision_tower", "pretrain_mm_mlp_adapter")  # fmt: skip


@dataclass(kw_only=True)
class TrainingArguments(TrainingOptions, HfTrainingArguments):
    """transformers' arguments with defaults that fit this trainer."""


def weight_dtype(training: HfTrainingArguments) -> torch.dtype:
    """Choose the type that frozen weights are kept in."""
    if training.bf16:
        return torch.bfloat16
    return torch.float16 if training.fp16 else torch.float32


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All arguments of a training run.

    Attributes:
        recipe: what was given, as a recipe that `--config` reads again.
        names: of the arguments that were given, by the command line or its recipe.
    """

    model: ModelArguments
    data: DataArguments
    custom: CustomArguments
    training: TrainingArguments
    recipe: str
    names: frozenset[str] = frozenset()


def device_arguments(argv: Sequence[str]) -> list[str]:
    """Prepare the process for its device.

    Returns:
        The command line with what the device asks for.
    """
    device = detect()
    prepare_process(device)
    return [*argv, *(["--use_cpu", "True"] if device.kind == "cpu" and "--use_cpu" not in argv else [])]


class _Parser(HfArgumentParser):
    """Says what is wrong with a command line without hundreds of lines of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help shows what there is)")


def _with_homes(argv: Sequence[str]) -> list[str]:
    """Put the home folder in place of a `~` that a shell left in quotes."""
    parts = (part.partition("=") if part.startswith("--") else ("", "", part) for part in argv)
    return [f"{name}{sign}{os.path.expanduser(value)}" for name, sign, value in parts]


def from_anywhere(argv: Sequence[str]) -> list[str]:
    """Name a command line's files from the root, so that it says the same wherever it is read again."""
    out = []
    for name, value in given_arguments(argv).items():
        if name == "datasets":
            value = ",".join(_item_from_anywhere(entry) for entry in parse_entries(value))
        elif name in NEW_PLACES or (name in PLACES and os.path.exists(value)):
            value = os.path.abspath(value)
        out.append(f"--{name}={value}")
    return out


def _item_from_anywhere(entry: Entry) -> str:
    name = os.path.abspath(entry.name) if is_file_name(entry.name) else entry.name
    split, weight = f"@{entry.split}" if entry.split else "", f":{entry.weight}" if entry.weight != 1 else ""
    return name + split + weight


def parse_dataclasses(argv: Sequence[str] | None, kinds: Sequence[type]) -> tuple[list[str], tuple[Any, ...]]:
    """Parse a training's command line.

    Args:
        argv: it; None: this process's.
        kinds: dataclasses of the arguments, transformers' the last of them.

    Returns:
        What was given, with the recipe's arguments and under today's names; and the dataclasses.

    Raises:
        ValueError: An argument does not exist, or does nothing here; names it.
    """
    names = list(dict.fromkeys(entry.name for kind in kinds for entry in fields(kind)))
    command_line = _with_homes(todays(expand(sys.argv[1:] if argv is None else argv), names))
    refuse_unknown(command_line, names)
    parsed = _Parser(kinds).parse_args_into_dataclasses(device_arguments(command_line))
    refuse_unused(parsed[-1], command_line, [entry.name for entry in fields(HfTrainingArguments)])
    refuse_zeros(parsed[-1])
    refuse_missing_reporters(parsed[-1].report_to, get_available_reporting_integrations())
    return command_line, parsed


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """Parse the command line.

    Raises:
        ValueError: A value cannot be used; names it and what is allowed.
    """
    kinds = (ModelArguments, DataArguments, CustomArguments, TrainingArguments)
    command_line, (model, data, custom, training) = parse_dataclasses(argv, kinds)
    sections = {"model": ModelArguments, "data": DataArguments, "adapter": CustomArguments}
    arguments = Arguments(
        model=model,
        data=data,
        custom=custom,
        training=training,
        recipe=recipe_text(from_anywhere(command_line), section_of(sections)),
        names=frozenset(given_arguments(command_line)),
    )
    _check(arguments)
    return arguments


def _refuse_without(args: Arguments, options: Sequence[str], reason: str) -> None:
    """Refuse options that would do nothing; with the value that each has by itself it says nothing else.

    Raises:
        ValueError: one is given; names it and the reason.
    """
    own = {entry.name: default_of(entry) for entry in fields(CustomArguments)}
    for name in options:
        value = getattr(args.custom, name)
        if name in args.names and value != own[name]:
            raise ValueError(f"--{name} {value} is not used here: {reason}. Leave it out.")


def _check(args: Arguments) -> None:
    """Refuse what can be refused before anything is loaded."""
    backbone = get_backbone(args.model.base_model)
    role = get_role(args.model.role)
    budget = args.data.budget().applied(role.budget).on(backbone.units)
    if role.has_head:
        check_frames(budget.max_frames, backbone.units.frames_per_step)
    for name, value, allowed in (
        ("conv_type", args.model.conv_type, (None, backbone.conv_type)),
        ("lora_type", args.custom.lora_type, LORA_TYPES),
        ("lora_bias", args.custom.lora_bias, ("none", "all", "lora_only")),
        ("tuning_modules", args.custom.tuning_modules, (None, *TUNING_MODULES)),
    ):
        if value not in allowed:
            raise ValueError(f"Unknown --{name} {value!r}. {nearest(value, filter(None, allowed))}")
    if args.custom.train_new_tokens_only and not role.trains_tables:
        raise ValueError(f"--train_new_tokens_only: the {args.model.role} trains no rows of the word tables")
    if not args.custom.lora_enable:
        _refuse_without(args, LORA_OPTIONS, "--lora_enable False trains no adapter")
    if not role.has_head:
        _refuse_without(args, HEAD_OPTIONS, f"the {role.name} has no grounding head")
    if not 0 <= args.custom.head_droppath < 1:
        raise ValueError(f"--head_droppath must be at least 0 and below 1, not {args.custom.head_droppath}")
    for entry in parse_entries(args.data.datasets):
        open_source(entry.name, args.data.data_root).resolve_split(entry.split)
