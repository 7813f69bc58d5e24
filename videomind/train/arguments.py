"""Command-line arguments of training; whatever is not here is transformers' TrainingArguments."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from transformers import HfArgumentParser
from transformers import TrainingArguments as HfTrainingArguments

from videomind.backbones.registry import DEFAULT_BACKBONE, get_backbone
from videomind.dataset.filters import Filters
from videomind.dataset.parts import open_source, parse_entries
from videomind.device import detect, optimizer, prepare_process
from videomind.model.adapters import LORA_TYPES, LoraSettings
from videomind.model.layers import DROPPATH
from videomind.model.losses import LossWeights
from videomind.roles import BudgetOverride, get_role, nearest
from videomind.runs.recipes import expand, recipe_text
from videomind.video.reader import ON_DAMAGE, USE

TUNING_MODULES = ("projector",)
BUDGET_ARGUMENTS = ("min_tokens_per_frame", "max_tokens_per_frame", "max_frames", "fps")


@dataclass(kw_only=True)
class ModelArguments:
    """What is trained and from where."""

    model_name_or_path: str = field(metadata={"help": "base model, role checkpoint or hub id"})
    role: str = field(metadata={"help": "planner, grounder, verifier, answerer or all_in_one"})
    base_model: str = field(
        default=DEFAULT_BACKBONE, metadata={"help": "backbone family; must be that of the model"}
    )
    conv_type: str | None = field(
        default=None, metadata={"help": "conversation format; only the backbone's own"}
    )
    base_model_path: str | None = field(
        default=None, metadata={"help": "base model of a role checkpoint, instead of the recorded one"}
    )
    attn_implementation: str = field(
        default="auto", metadata={"help": "auto, flash_attention_2, sdpa, eager"}
    )


@dataclass(kw_only=True)
class DataArguments:
    """Which samples train and how finely they are seen."""

    datasets: str = field(metadata={"help": "comma-separated NAME[@SPLIT][:WEIGHT], or .jsonl files"})
    data_root: str = field(default="data", metadata={"help": "folder of all data sets"})
    min_video_len: float = field(default=-1, metadata={"help": "seconds, -1 is off"})
    max_video_len: float = field(default=-1, metadata={"help": "seconds, -1 is off"})
    min_num_words: int = field(default=-1, metadata={"help": "-1 is off"})
    max_num_words: int = field(default=-1, metadata={"help": "-1 is off"})
    max_retries: int = field(
        default=10, metadata={"help": "stand-ins for one bad sample before it is an error"}
    )
    max_bad_share: float = field(
        default=0.1, metadata={"help": "stop when more than this share of the samples so far was bad"}
    )
    on_damage: str = field(
        default=USE,
        metadata={
            "help": "use samples of damaged videos and record them, or skip them",
            "choices": list(ON_DAMAGE),
        },
    )
    cache_frames: str | None = field(
        default=None, metadata={"help": "folder in which decoded frames are kept for later epochs and runs"}
    )
    cache_frames_gb: float = field(
        default=100.0, metadata={"help": "gigabytes that they may have; those used longest ago go first"}
    )
    model_max_length: int = field(default=32768, metadata={"help": "tokens per sample"})
    min_tokens_per_frame: int | None = field(default=None, metadata={"help": "overrides the role's budget"})
    max_tokens_per_frame: int | None = field(default=None, metadata={"help": "overrides the role's budget"})
    max_frames: int | None = field(default=None, metadata={"help": "overrides the role's budget"})
    fps: float | None = field(default=None, metadata={"help": "overrides the role's budget"})

    def filters(self) -> Filters:
        """Make the annotation filters."""
        return Filters(**{f.name: getattr(self, f.name) for f in fields(Filters)})

    def budget(self) -> BudgetOverride:
        """Make what replaces numbers of every role's visual budget."""
        return BudgetOverride(
            min_tokens=self.min_tokens_per_frame,
            max_tokens=self.max_tokens_per_frame,
            max_frames=self.max_frames,
            fps=self.fps,
        )


@dataclass(kw_only=True)
class CustomArguments:
    """Adapters, losses and what else trains."""

    group_by_data_type: bool = field(default=True, metadata={"help": "one data type per global micro-batch"})
    merge_adapter: bool = field(default=False, metadata={"help": "merge a role checkpoint's adapter first"})
    lora_enable: bool = field(default=True, metadata={"help": "train a LoRA adapter"})
    lora_type: str = field(default="qkvo", metadata={"help": ", ".join(sorted(LORA_TYPES))})
    lora_r: int = field(default=64)
    lora_alpha: int = field(default=64)
    lora_dropout: float = field(default=0.1)
    lora_bias: str = field(default="none", metadata={"help": "none, all or lora_only"})
    lora_lr: float | None = field(default=None, metadata={"help": "default: learning_rate"})
    head_lr: float | None = field(default=None, metadata={"help": "default: learning_rate"})
    tuning_modules: str | None = field(default=None, metadata={"help": "projector: also the vision merger"})
    train_new_tokens_only: bool = field(
        default=False, metadata={"help": "train the rows of the added tokens instead of both whole tables"}
    )
    save_full_model: bool = field(default=False, metadata={"help": "also write the whole model, merged"})
    head_droppath: float = field(
        default=DROPPATH, metadata={"help": "how often the head leaves a branch of a fusion layer out"}
    )
    loss_cls_weight: float = field(default=LossWeights.classification)
    loss_reg_weight: float = field(default=LossWeights.regression)
    loss_sal_weight: float = field(default=LossWeights.saliency)

    def lora(self) -> LoraSettings:
        """Make the adapter's settings."""
        return LoraSettings(
            lora_type=self.lora_type,
            r=self.lora_r,
            alpha=self.lora_alpha,
            dropout=self.lora_dropout,
            bias=self.lora_bias,
            new_tokens_only=self.train_new_tokens_only,
        )

    def loss_weights(self) -> LossWeights:
        """Make the weights of the grounding losses."""
        return LossWeights(
            classification=self.loss_cls_weight,
            regression=self.loss_reg_weight,
            saliency=self.loss_sal_weight,
        )


@dataclass(kw_only=True)
class TrainingArguments(HfTrainingArguments):
    """transformers' arguments with defaults that fit this trainer."""

    remove_unused_columns: bool = False
    # The average of past losses in place of a NaN would hide it.
    logging_nan_inf_filter: bool = False
    report_to: None | str | list[str] = "none"
    save_total_limit: int | None = 1
    optim: str = field(default_factory=lambda: optimizer(detect().kind))
    # All that trains takes part in every step: a head without moments has a gradient of zero.
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self) -> None:
        if self.gradient_checkpointing and self.gradient_checkpointing_kwargs is None:
            self.gradient_checkpointing_kwargs = {"use_reentrant": False}
        super().__post_init__()


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
    """

    model: ModelArguments
    data: DataArguments
    custom: CustomArguments
    training: TrainingArguments
    recipe: str


def device_arguments(argv: Sequence[str]) -> list[str]:
    """Prepare the process for its device.

    Returns:
        The command line with what the device asks for.
    """
    device = detect()
    prepare_process(device)
    return [*argv, *(["--use_cpu", "True"] if device.kind == "cpu" and "--use_cpu" not in argv else [])]


def section_of(sections: Mapping[str, type]) -> dict[str, str]:
    """Say which section of a recipe an argument belongs to.

    Args:
        sections: section to the dataclass of its arguments.

    Returns:
        Argument to section; what a video's frames may cost has a section of its own.
    """
    found = {entry.name: section for section, kind in sections.items() for entry in fields(kind)}
    return {name: "budget" if name in BUDGET_ARGUMENTS else section for name, section in found.items()}


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """Parse the command line.

    Raises:
        ValueError: A value cannot be used; names it and what is allowed.
    """
    given = expand(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser((ModelArguments, DataArguments, CustomArguments, TrainingArguments))
    model, data, custom, training = parser.parse_args_into_dataclasses(device_arguments(given))
    sections = {"model": ModelArguments, "data": DataArguments, "adapter": CustomArguments}
    arguments = Arguments(
        model=model,
        data=data,
        custom=custom,
        training=training,
        recipe=recipe_text(given, section_of(sections)),
    )
    _check(arguments)
    return arguments


def _check(args: Arguments) -> None:
    """Refuse what can be refused before anything is loaded."""
    backbone = get_backbone(args.model.base_model)
    args.data.budget().applied(get_role(args.model.role).budget).on(backbone.units)
    for name, value, allowed in (
        ("conv_type", args.model.conv_type, (None, backbone.conv_type)),
        ("lora_type", args.custom.lora_type, LORA_TYPES),
        ("lora_bias", args.custom.lora_bias, ("none", "all", "lora_only")),
        ("tuning_modules", args.custom.tuning_modules, (None, *TUNING_MODULES)),
    ):
        if value not in allowed:
            raise ValueError(f"Unknown --{name} {value!r}. {nearest(value, filter(None, allowed))}")
    if not 0 <= args.custom.head_droppath < 1:
        raise ValueError(f"--head_droppath must be at least 0 and below 1, not {args.custom.head_droppath}")
    for entry in parse_entries(args.data.datasets):
        open_source(entry.name, args.data.data_root).resolve_split(entry.split)
