"""Command-line arguments of Video-ChatGPT's training: the documented ones, on today's transformers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from transformers.utils import is_torch_tf32_available

from videomind.roles import nearest
from videomind.runs.recipes import recipe_text
from videomind.train.command_line.arguments import TrainingArguments, from_anywhere, parse_dataclasses
from videomind.train.command_line.options import section_of
from videomind.video_chatgpt.options import (
    PROJECTORS,
    VERSION,
    VideoDataArguments,
    VideoModelArguments,
    VideoTrainingOptions,
)

log = logging.getLogger(__name__)


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


def parse_arguments(argv: Sequence[str] | None = None) -> VideoArguments:
    """Parse the command line.

    Raises:
        ValueError: a value that is not allowed; names it and what is.
    """
    kinds = (VideoModelArguments, VideoDataArguments, VideoTrainingArguments)
    command_line, (model, data, training) = parse_dataclasses(argv, kinds)
    if model.mm_projector_type not in (None, *PROJECTORS):
        raise ValueError(
            f"Unknown --mm_projector_type {model.mm_projector_type!r}. "
            f"{nearest(model.mm_projector_type, PROJECTORS)}"
        )
    if model.version != VERSION:
        log.info("--version %s: the conversation is that of %s, the only one", model.version, VERSION)
    sections = section_of({"model": VideoModelArguments, "data": VideoDataArguments})
    recipe = recipe_text(from_anywhere(command_line), sections)
    return VideoArguments(model=model, data=data, training=training, recipe=recipe)
