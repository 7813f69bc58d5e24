"""Texts to token ids, so that what data say never becomes a control token.

Templates make control tokens (turns, the video's place, `<|reg|>`). A query, a question, an option or a
subtitle that holds their text is encoded as the characters that it is made of.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a text.

    Attributes:
        text: its characters.
        is_template: whether control tokens in it are meant.
    """

    text: str
    is_template: bool


def template(text: str) -> Piece:
    """Mark a text as this package's own, whose control tokens are meant."""
    return Piece(text=text, is_template=True)


def data(text: str) -> Piece:
    """Mark a text as somebody's words, in which nothing is a control token."""
    return Piece(text=text, is_template=False)


def joined(pieces: Iterable[Piece]) -> str:
    """Join the characters of pieces."""
    return "".join(piece.text for piece in pieces)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids of a text.

    Attributes:
        ids: (L) of them.
        starts: where in the text each begins, characters; 0 for those that stand for none.
    """

    ids: list[int]
    starts: list[int]


class TextEncoder:
    """Encodes texts of pieces.

    Args:
        tokenizer: a fast one; its special tokens are the control tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer

    @cached_property
    def _controls(self) -> dict[str, int]:
        added = self._tokenizer.added_tokens_decoder
        return {token.content: number for number, token in added.items() if token.special}

    @cached_property
    def _control(self) -> re.Pattern[str]:
        longest_first = sorted(self._controls, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @cached_property
    def _plain(self) -> Tokenizer:
        """The same tokenizer without control tokens, and without those that it puts around a text."""
        spec = json.loads(self._tokenizer.backend_tokenizer.to_str())
        spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] not in self._controls]
        spec |= {"post_processor": None, "truncation": None, "padding": None}
        return Tokenizer.from_str(json.dumps(spec))

    def __call__(self, pieces: Sequence[Piece], *, add_special_tokens: bool) -> Tokens:
        """Encode a text.

        A text in whose data no control token is written gets the ids that the tokenizer gives it as a whole.

        Args:
            pieces: in their order.
            add_special_tokens: whether the tokenizer puts its own around the text.
        """
        text = joined(pieces)
        meant = list(self._places(pieces))
        if meant == [match.span() for match in self._control.finditer(text)]:
            encoding = self._tokenizer(
                text, add_special_tokens=add_special_tokens, return_offsets_mapping=True
            )
            starts = [start for start, _ in encoding["offset_mapping"]]
            return Tokens(ids=list(encoding["input_ids"]), starts=starts)
        return self._apart(text, meant, add_special_tokens)

    def _places(self, pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
        """Find where control tokens are meant, in the whole text."""
        offset = 0
        for piece in pieces:
            if piece.is_template:
                for match in self._control.finditer(piece.text):
                    yield offset + match.start(), offset + match.end()
            offset += len(piece.text)

    def _apart(self, text: str, meant: Sequence[tuple[int, int]], add_special_tokens: bool) -> Tokens:
        """Encode what lies between the meant control tokens by itself, as the tokenizer does."""
        around = self._tokenizer("")["input_ids"] if add_special_tokens else []
        begins = bool(around) and around[0] == self._tokenizer.bos_token_id
        ids: list[int] = around[: int(begins)]
        starts = [0] * len(ids)
        done = 0
        for start, end in (*meant, (len(text), len(text))):
            if start > done:
                encoding = self._plain.encode(text[done:start], add_special_tokens=False)
                ids += encoding.ids
                starts += [done + offset for offset, _ in encoding.offsets]
            if end > start:
                ids.append(self._controls[text[start:end]])
                starts.append(start)
            done = end
        closing = around[int(begins) :]
        return Tokens(ids=ids + closing, starts=starts + [0] * len(closing))
