"""A Sample's conversation as text, in the backbone's chat format; the same for training and inference.

One user turn (the video, then text) and one assistant turn. The format is part of the checkpoints' input,
like the prompts.
"""

from dataclasses import dataclass
from typing import Any

from videomind.backbones.backbone import Backbone
from videomind.dataset.schema import Sample


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Rendered text of a sample.

    Attributes:
        context: up to the assistant's turn.
        response: what is learned, or ''.
    """

    context: str
    response: str


def render(sample: Sample, backbone: Backbone) -> Conversation:
    """Write the text of a sample; with a response, that one and its end mark are what is learned."""
    context = backbone.chat([("user", backbone.video_text + sample.prompt), ("assistant", None)])
    if sample.response is None:
        return Conversation(context=context + (sample.response_prefix or ""), response="")
    return Conversation(context=context, response=sample.response.rstrip() + backbone.end_mark)


def to_messages(sample: Sample, backbone: Backbone) -> list[dict[str, Any]]:
    """Make the conversation in the chat format of transformers, for looking at and for other tools."""
    excerpt, budget = sample.excerpt, sample.excerpt.budget.on(backbone.units)
    video: dict[str, Any] = {"type": "video", "video": excerpt.path}
    if excerpt.start_s is not None:
        video |= {"video_start": excerpt.start_s, "video_end": excerpt.end_s}
    video |= {
        "min_pixels": budget.min_pixels,
        "max_pixels": budget.max_pixels,
        "max_frames": budget.max_frames,
        "fps": budget.fps,
    }
    messages = [{"role": "user", "content": [video, {"type": "text", "text": sample.prompt}]}]
    if sample.response is not None:
        messages.append({"role": "assistant", "content": sample.response})
    return messages
