"""A Sample's conversation as text: ChatML as Qwen2-VL was trained with, the same for training and inference.

One user turn (the video, then text) and one assistant turn. The template is part of the checkpoints' input
format, like the prompts.
"""

from dataclasses import dataclass

from videomind.dataset.schema import Sample
from videomind.roles import PROMPTS

VIDEO_PLACEHOLDER = "<|vision_start|><|video_pad|><|vision_end|>"
_END = "<|im_end|>"


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Rendered text of a sample. Attributes: context, up to the assistant's turn; response, or ''."""

    context: str
    response: str


def chatml(turns: list[tuple[str, str | None]]) -> str:
    """Render turns of (speaker, text) behind the system prompt; a last text of None leaves its turn open."""
    turns = [("system", PROMPTS["chat_template_system"]), *turns]
    parts = [f"<|im_start|>{who}\n" + ("" if text is None else f"{text}{_END}\n") for who, text in turns]
    return "".join(parts)


def render(sample: Sample) -> Conversation:
    """The text of a sample; with a response, that one and its end mark are what is learned."""
    context = chatml([("user", VIDEO_PLACEHOLDER + sample.prompt), ("assistant", None)])
    if sample.response is None:
        return Conversation(context=context + (sample.response_prefix or ""), response="")
    return Conversation(context=context, response=sample.response.rstrip() + _END)


def to_messages(sample: Sample) -> list[dict]:
    """The conversation in the chat format of transformers, for looking at and for other tools."""
    excerpt = sample.excerpt
    video: dict = {"type": "video", "video": excerpt.path}
    if excerpt.start_s is not None:
        video |= {"video_start": excerpt.start_s, "video_end": excerpt.end_s}
    video |= {
        "min_pixels": excerpt.budget.min_pixels,
        "max_pixels": excerpt.budget.max_pixels,
        "max_frames": excerpt.budget.max_frames,
        "fps": excerpt.budget.fps,
    }
    messages = [{"role": "user", "content": [video, {"type": "text", "text": sample.prompt}]}]
    if sample.response is not None:
        messages.append({"role": "assistant", "content": sample.response})
    return messages
