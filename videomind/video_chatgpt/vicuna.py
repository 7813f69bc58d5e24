"""Conversations about a video as Vicuna reads them: prompts, token ids, and which tokens are learned.

L tokens, N rows of a video's features. Training and inference share the templates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from videomind.dataset.schema import VIDEO
from videomind.encoding.encoder import IGNORE_INDEX, BadSampleError
from videomind.encoding.text import Piece, TextEncoder, data, joined, template
from videomind.roles import nearest
from videomind.video_chatgpt.options import CHAT_MODE, SYSTEMS, TRAINING_MODE
from videomind.video_chatgpt.tokenizer import VIDEO_END, VIDEO_PATCH, VIDEO_START

USER, ASSISTANT = "USER", "ASSISTANT"
END = "</s>"
_SPEAKERS = {"human": USER, "gpt": ASSISTANT}
_ANSWER = f" {ASSISTANT}: "


@dataclass(frozen=True, kw_only=True)
class VideoBlock:
    """What `<video>` becomes.

    Attributes:
        num_tokens: N.
        has_start_end: whether two more tokens enclose it.
    """

    num_tokens: int
    has_start_end: bool

    def __str__(self) -> str:
        patches = VIDEO_PATCH * self.num_tokens
        return f"{VIDEO_START}{patches}{VIDEO_END}" if self.has_start_end else patches


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Tokens of one training sample.

    Attributes:
        input_ids: (L,).
        labels: (L,), IGNORE_INDEX where nothing is learned.
        ignored: why nothing of it is learned, else None.
    """

    input_ids: Tensor
    labels: Tensor
    ignored: str | None = None


def chat_prompt(question: str, block: VideoBlock, *, mode: str = CHAT_MODE) -> str:
    """Write what the model answers to.

    Args:
        question: about the video.
        block: the video.
        mode: a key of SYSTEMS.

    Raises:
        ValueError: an unknown mode.
    """
    return joined(chat_pieces(question, block, mode=mode))


def chat_pieces(question: str, block: VideoBlock, *, mode: str = CHAT_MODE) -> list[Piece]:
    """Write what the model answers to, in parts: `chat_prompt` is all of it."""
    if mode not in SYSTEMS:
        raise ValueError(f"Unknown conversation {mode!r} (--conv-mode). {nearest(mode, SYSTEMS)}")
    return [
        template(f"{SYSTEMS[mode]} {USER}: "),
        data(question),
        template(f"\n{block} {ASSISTANT}:"),
    ]


def training_prompt(
    turns: Sequence[Mapping[str, str]], block: VideoBlock | None, *, is_video_first: bool = False
) -> str:
    """Write the text of one sample: all of `training_pieces`."""
    return joined(training_pieces(turns, block, is_video_first=is_video_first))


def training_pieces(
    turns: Sequence[Mapping[str, str]], block: VideoBlock | None, *, is_video_first: bool = False
) -> list[Piece]:
    """Write the text of one sample, in parts.

    Args:
        turns: of `from` (human or gpt) and `value`.
        block: of a sample with a video.
        is_video_first: put the video of the first turn into a prefix of its own.

    Raises:
        BadSampleError: the speakers do not alternate.
    """
    if block is not None and is_video_first and turns and VIDEO in turns[0]["value"]:
        text = turns[0]["value"].replace(VIDEO, "").strip()
        turns = [{**turns[0], "value": f"{VIDEO} {_speaker(turns[0])}: {text}"}, *turns[1:]]
    if turns and _speaker(turns[0]) == ASSISTANT:
        turns = turns[1:]  # an answer to nothing
    pieces = [template(f"{SYSTEMS[TRAINING_MODE]} ")]
    for position, turn in enumerate(turns):
        speaker, closing = (ASSISTANT, END) if position % 2 else (USER, " ")
        if _speaker(turn) != speaker:
            raise BadSampleError(f"turn {position + 1} is from {turn['from']!r}, but {speaker} is to speak")
        if not turn["value"]:
            pieces.append(template(f"{speaker}:"))
            continue
        said = [turn["value"]] if block is None else turn["value"].split(VIDEO)
        pieces.append(template(f"{speaker}: "))
        for number, text in enumerate(said):
            pieces += [template(str(block))] * (number > 0) + [data(text)]
        pieces.append(template(closing))
    return pieces


def _speaker(turn: Mapping[str, str]) -> str:
    if turn["from"] not in _SPEAKERS:
        raise BadSampleError(f"a turn is from {turn['from']!r}. {nearest(turn['from'], _SPEAKERS)}")
    return _SPEAKERS[turn["from"]]


@lru_cache(maxsize=4)
def text_encoder(tokenizer: PreTrainedTokenizerFast) -> TextEncoder:
    """Get the encoder of a tokenizer, which is made once."""
    return TextEncoder(tokenizer)


def _malformed(prompt: str, upto: int) -> str | None:
    """Tell why the original learns nothing from a prompt: its markers are not where a reader expects them.

    Args:
        prompt: of a sample.
        upto: characters that count; the rest is cut off.
    """
    position = 0
    *rounds, rest = prompt.split(END)
    for number, text in enumerate(rounds, 1):
        if position >= upto:
            return None
        if text.count(_ANSWER) != 1:
            return f"round {number} has no answer, or {ASSISTANT!r} or {END!r} within a text"
        position += len(text) + len(END)
    return "it does not end with an answer" if rest and position < upto else None


def label(prompt: str | Sequence[Piece], tokenizer: PreTrainedTokenizerFast, *, max_length: int) -> Labelled:
    """Encode a training prompt; the answers are learned, each with the `</s>` that ends it.

    Which tokens belong to an answer follows from their places in the text, so it is right for every
    tokenizer, whatever it does to blanks around special tokens.

    Args:
        prompt: of `training_pieces`, or the text as a whole, all of whose control tokens are meant.
        tokenizer: with the tokens of a video.
        max_length: tokens that are kept.
    """
    pieces = [template(prompt)] if isinstance(prompt, str) else prompt
    tokens, prompt = text_encoder(tokenizer)(pieces, add_special_tokens=True), joined(pieces)
    ids, starts = torch.tensor(tokens.ids), torch.tensor(tokens.starts)
    is_cut = len(ids) > max_length
    ignored = _malformed(prompt, int(starts[max_length]) if is_cut else len(prompt))
    ids, starts = ids[:max_length], starts[:max_length]
    labels = torch.full_like(ids, IGNORE_INDEX)
    if not is_cut and (tokenizer.pad_token_id in ids or tokenizer.pad_token in prompt):
        ignored = ignored or f"{tokenizer.pad_token!r}, which pads, is within a text"
    if ignored:
        return Labelled(input_ids=ids, labels=labels, ignored=ignored)
    end = 0
    for text in prompt.split(END)[:-1]:
        first = end + text.find(_ANSWER) + len(_ANSWER.rstrip())
        end += len(text) + len(END)
        answer = (starts >= first) & (starts < end)
        labels[answer] = ids[answer]
    nothing = f"its first {max_length} tokens (--model_max_length) hold no answer"
    return Labelled(input_ids=ids, labels=labels, ignored=None if (labels >= 0).any() else nothing)
