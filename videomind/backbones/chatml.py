"""ChatML, the chat format of the Qwen family: every turn between a start and an end mark."""

from collections.abc import Iterable

from videomind.roles import PROMPTS

START_MARK, END_MARK = "<|im_start|>", "<|im_end|>"


def chatml(turns: Iterable[tuple[str, str | None]]) -> str:
    """Render turns behind the system prompt.

    Args:
        turns: speaker and text; a last text of None leaves its turn open.
    """
    turns = [("system", PROMPTS["chat_template_system"]), *turns]
    return "".join(
        f"{START_MARK}{speaker}\n" + ("" if text is None else f"{text}{END_MARK}\n")
        for speaker, text in turns
    )
