"""Command-line arguments of Video-ChatGPT's training: the documented ones, on today's transformers."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

from transformers import HfArgumentParser
from transformers.utils import is_torch_tf32_available

from videomind.roles import nearest
from videomind.runs.recipes import expand, recipe_text
from videomind.train.arguments import TrainingArguments, device_arguments
from videomind.train.options import section_of
from videomind.video_chatgpt.names import PROJECTORS
from videomind.video_chatgpt.options import (
    VERSION,
    VideoDataArguments,
    VideoModelArguments,
    VideoTrainingOptions,
)

log = logging.getLogger(__name__)

# What transformers of 2023 called these.
_RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "warmup_ratio": "warmup_steps",  # below 1 it is a share
}
# What it had and nothing here needs any more.
_GONE = (
    "fp16_backend",
    "fp16_opt_level",
    "half_precision_backend",
    "local_rank",
    "logging_dir",
    "overwrite_output_dir",
    "save_safetensors",
)


@dataclass(kw_only=True)
class VideoTrainingArguments(VideoTrainingOptions, TrainingArguments):
    """transformers' arguments with the documented defaults."""

    def __post_init__(self) -> None:
        if self.tf32 and not is_torch_tf32_available():
            log.info("--tf32 has no effect: this device has no such mode")
            self.tf32 = None
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class VideoArguments:
    """All arguments of a training run.

    Attributes:
        recipe: what was given, as a recipe that `--config` reads again.
    """

    model: VideoModelArguments
    data: VideoDataArguments
    training: VideoTrainingArguments
    recipe: str


def todays(argv: Sequence[str]) -> list[str]:
    """Write a command line under today's names; what changed is logged.

    Args:
        argv: as it was documented for transformers of 2023.
    """
    known = {entry.name for entry in fields(VideoTrainingArguments)}
    flags = {part.removeprefix("--").partition("=")[0] for part in argv if part.startswith("--")}
    out: list[str] = []
    is_dropped = False
    for part in argv:
        if not part.startswith("--"):
            out += [] if is_dropped else [part]
            continue
        name, sign, value = part.removeprefix("--").partition("=")
        new = name if name in known else _RENAMED.get(name, name)
        is_gone = name not in known and name in _GONE
        is_dropped = is_gone or (new != name and new in flags)
        if is_gone:
            log.info("--%s has no effect in this version of transformers", name)
        elif is_dropped:
            log.info("--%s is left out: --%s is given", name, new)
        elif new != name:
            log.info("--%s is --%s today", name, new)
        out += [] if is_dropped else [f"--{new}", *([value] if sign else [])]
    return out


def parse_arguments(argv: Sequence[str] | None = None) -> VideoArguments:
    """Parse the command line.

    Raises:
        ValueError: a value that is not allowed; names it and what is.
    """
    given = todays(expand(sys.argv[1:] if argv is None else argv))
    parser = HfArgumentParser((VideoModelArguments, VideoDataArguments, VideoTrainingArguments))
    model, data, training = parser.parse_args_into_dataclasses(device_arguments(given))
    if model.mm_projector_type not in (None, *PROJECTORS):
        raise ValueError(
            f"Unknown --mm_projector_type {model.mm_projector_type!r}. "
            f"{nearest(model.mm_projector_type, PROJECTORS)}"
        )
    if model.version != VERSION:
        log.info("--version %s: the conversation is that of %s, the only one", model.version, VERSION)
    sections = section_of({"model": VideoModelArguments, "data": VideoDataArguments})
    return VideoArguments(model=model, data=data, training=training, recipe=recipe_text(given, sections))
