"""A Sample's conversation as text, in the backbone's chat format; the same for training and inference.

One user turn (the video, then text) and one assistant turn. The format is part of the checkpoints' input,
like the prompts.
"""

from dataclasses import dataclass
from typing import Any

from videomind.backbones.backbone import Backbone
from videomind.dataset.schema import Sample
from videomind.encoding.text import Piece, data, joined, template
from videomind.roles import GROUNDER_RESPONSE, PROMPTS

PROMPT = "\0"  # stands for a prompt where the chat format is asked what comes around it


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Rendered text of a sample.

    Attributes:
        asked: up to the assistant's turn.
        learned: the assistant's turn, or nothing.
    """

    asked: tuple[Piece, ...]
    learned: tuple[Piece, ...] = ()

    @property
    def context(self) -> str:
        """The text up to the assistant's turn."""
        return joined(self.asked)

    @property
    def response(self) -> str:
        """The text that is learned, or ''."""
        return joined(self.learned)


def render(sample: Sample, backbone: Backbone) -> Conversation:
    """Write the text of a sample; with a response, that one and its end mark are what is learned."""
    before, after = backbone.chat([("user", PROMPT), ("assistant", None)]).split(PROMPT)
    own = _template_start(sample.prompt)
    asked = (
        template(before + backbone.video_text + own),
        data(sample.prompt.removeprefix(own)),
        template(after),
    )
    if sample.response is None:
        return Conversation(asked=(*asked, template(sample.response_prefix or "")))
    kind = template if sample.response == GROUNDER_RESPONSE else data
    learned = (kind(sample.response.rstrip()), template(backbone.end_mark))
    return Conversation(asked=asked, learned=learned)


def _template_start(prompt: str) -> str:
    """Give the part of a prompt, from its start, that is a role's template; '' where it begins with data."""
    starts = (PROMPTS[role].partition("{}")[0] for role in ("planner", "grounder", "verifier"))
    return next((start for start in starts if prompt.startswith(start)), "")


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
