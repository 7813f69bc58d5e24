"""Our own arguments of training, which need no transformers; `videomind train --help` shows them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from videomind.backbones.backbone import DEFAULT_BACKBONE
from videomind.dataset.filters import Filters
from videomind.device import detect, optimizer
from videomind.model.settings import DROPPATH, LORA_TYPES, LoraSettings, LossWeights
from videomind.roles import BudgetOverride
from videomind.video.request import ON_DAMAGE, USE

BUDGET_ARGUMENTS = ("min_tokens_per_frame", "max_tokens_per_frame", "max_frames", "fps", "square_pixels")


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
    square_pixels: bool = field(
        default=False, metadata={"help": "stretch frames whose pixels are not square, as players do"}
    )

    def filters(self) -> Filters:
        """Make the annotation filters."""
        return Filters(**{f.name: getattr(self, f.name) for f in fields(Filters)})

    def budget(self) -> BudgetOverride:
        """Make what replaces numbers of every role's visual budget."""
        return BudgetOverride.of_arguments(self)


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
class TrainingOptions:
    """Arguments of transformers whose defaults differ here.

    A class of its TrainingArguments takes them over by naming this one first among its bases.
    """

    remove_unused_columns: bool = False
    # The average of past losses in place of a NaN would hide it.
    logging_nan_inf_filter: bool = False
    report_to: None | str | list[str] = "none"
    save_total_limit: int | None = 1
    # Batches come from pinned memory; nobody waits for their way to the device.
    accelerator_config: dict | str | None = field(default_factory=lambda: {"non_blocking": True})
    optim: str = field(
        default_factory=lambda: optimizer(detect().kind),
        metadata={"help": "default: AdamW, fused where the device can"},
    )
    # All that trains takes part in every step: a head without moments has a gradient of zero.
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self) -> None:
        # Each has two names, of which a version of transformers may know one.
        kinds = ("gradient_checkpointing", "activation_checkpointing")
        is_told_how = any(getattr(self, f"{kind}_kwargs", None) for kind in kinds)
        for kind in kinds:
            if getattr(self, kind, None) and not is_told_how:
                setattr(self, f"{kind}_kwargs", {"use_reentrant": False})
        super().__post_init__()


def section_of(sections: Mapping[str, type]) -> dict[str, str]:
    """Say which section of a recipe an argument belongs to.

    Args:
        sections: section to the dataclass of its arguments.

    Returns:
        Argument to section; what a video's frames may cost has a section of its own.
    """
    known = {entry.name: section for section, kind in sections.items() for entry in fields(kind)}
    return {name: "budget" if name in BUDGET_ARGUMENTS else section for name, section in known.items()}
