"""The records that flow through the data path: Annotation, then Sample, then a batch of tensors."""

import os
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from videomind.prediction import PUBLISHED_KEYS
from videomind.video.request import Excerpt

Span = list[float]  # [start, end], s
LARGEST = 1 << 53  # what a double holds exactly
VIDEO = "<video>"  # where a question of VideoInstruct has the video


class Route(IntEnum):
    """How a question is to be answered, as the planner learns it; rows hold the number (docs/DATA.md)."""

    REPHRASED = 1  # ground the rephrased query, verify, answer
    QUESTION = 2  # the same with the question as it stands
    MOMENT = 3  # ground the query and verify: the moment is the answer
    DIRECT = 4  # answer at once

    @property
    def has_query(self) -> bool:
        """Whether it grounds a query of the row's own."""
        return self in (Route.REPHRASED, Route.MOMENT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """One labelled question or query about one video, as every source yields it.

    None means that the source does not give a field. What is not listed here is what single sources report.

    Attributes:
        source: the data set's registered name.
        data_type: `grounding` or `multimodal`; a global micro-batch holds one type.
        video_path: a file, or a list of image files.
        duration: of the video, s.
        options: without letters; `ans` is the right one's letter, `answer` its text.
        span: the true moments, s.
        route: a number of `Route`.
        meta: what only the source's scorer needs, by the keys that it has in predictions.
    """

    source: str = "unknown"
    data_type: str | None = None
    video_path: str | list[str] | None = None
    duration: float | None = None
    query: str | None = None
    question: str | None = None
    options: list[str] | None = None
    answer: str | None = None
    ans: str | None = None
    span: list[Span] | None = None
    task: str | list[str] | None = None
    uid: str | None = None
    subtitle_path: str | None = None
    domain: str | None = None
    level: Any = None
    question_category: Any = None
    time_reference: str | None = None
    no_aug: bool | None = None
    pred: Span | None = None
    positive: bool | None = None
    route: int | None = None
    meta: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Collect the fields that are set, in declaration order, and `meta`: what predictions start from."""
        named = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        meta = named.pop("meta", {})
        return {**named, **meta}

    def check_types(self) -> None:
        """Compare the values with the types that are declared here; rows can hold anything.

        Raises:
            TypeError: a value is of another type.
            ValueError: a moment is no pair, a text no Unicode, a number too large, a key of `meta` taken.
        """
        if self.meta and (taken := sorted(self.meta.keys() & _TAKEN)):
            raise ValueError(f"meta has the key {taken[0]!r}, which a prediction holds already")
        optional = (self.data_type, self.query, self.question, self.answer, self.ans, self.uid,
                    self.domain, self.time_reference)  # fmt: skip
        texts = [self.source, *(value for value in optional if value is not None), *_each(self.task)]
        for path in (*_each(self.video_path), *_each(self.subtitle_path)):
            as_path(path)
        untyped = (self.level, self.question_category, *(self.meta or {}).values())
        texts += [value for value in untyped if isinstance(value, str)]
        texts += [] if self.options is None else as_list(self.options)
        for value in texts:
            as_text(value)
        if self.duration is not None:
            as_number(self.duration)
        if self.span is not None:
            as_moments(self.span)
        if self.pred is not None:
            as_moments([self.pred])
        for value, kind in ((self.no_aug, bool), (self.positive, bool), (self.route, int)):
            if value is not None and type(value) is not kind:
                raise TypeError(f"{value!r} stands where {kind.__name__} is expected")
        if self.route is not None:
            as_number(self.route)


_TAKEN = {field.name for field in fields(Annotation)} | PUBLISHED_KEYS


def as_text(value: Any) -> str:
    """Take a value of a row that has to be text.

    Raises:
        TypeError: it is something else.
        ValueError: half a surrogate pair, which no file can hold.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r} stands where text is expected")
    if not value.isascii():
        value.encode()
    return value


def _each(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def as_path(value: Any) -> str:
    """Take a value of a row that has to name a file, whose bytes need not be UTF-8.

    Raises:
        TypeError: it is no text.
        ValueError: half a surrogate pair that stands for no byte.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r} stands where text is expected")
    if not value.isascii():
        os.fsencode(value)
    return value


def as_name(value: Any) -> str:
    """Take a value of a row that has to name a video.

    Raises:
        TypeError: it is no text.
        ValueError: it is empty.
    """
    if not as_text(value):
        raise ValueError("the video's id is empty")
    return value


def as_number(value: Any) -> float:
    """Take a value of a row that has to be a number, mostly of seconds.

    Raises:
        TypeError: it is something else.
        ValueError: an integer that a double does not hold.
    """
    if type(value) not in (float, int):
        raise TypeError(f"{value!r} is not a number of seconds")
    if type(value) is int and abs(value) > LARGEST:
        raise ValueError("an integer of more than 53 bits stands where a number is expected")
    return value


def as_moments(value: Any) -> list | tuple:
    """Take a value of a row that has to be a list of [start, end], s.

    Raises:
        TypeError: it, or an end, is something else.
        ValueError: one of them is no pair.
    """
    for moment in as_list(value):
        if not isinstance(moment, list | tuple) or len(moment) != 2:
            raise ValueError(f"the moment {moment!r} is not a [start, end] pair")
        for time in moment:
            as_number(time)
    return value


def as_list(value: Any) -> list | tuple:
    """Take a value of a row that has to be a list: a text goes through a loop as well, letter by letter.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r} stands where a list is expected")
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingTarget:
    """The moments a `<|reg|>` token stands for.

    Attributes:
        spans: the true moments, s.
        duration_s: of the video.
    """

    spans: list[Span]
    duration_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One model input before decoding and tokenizing, the same for training and inference.

    Attributes:
        role: whose prompt this is.
        excerpt: what the model sees.
        prompt: the user's text.
        response: the assistant's text to learn; None at inference.
        response_prefix: text the assistant's turn starts with at inference.
        grounding: targets of the grounding head.
        segment: place of the verifier's candidate within the excerpt, as fractions (start, end).
        source: name of the data set it came from.
        data_type: of the annotation it came from.
    """

    role: str
    excerpt: Excerpt
    prompt: str
    response: str | None = None
    response_prefix: str | None = None
    grounding: GroundingTarget | None = None
    segment: tuple[float, float] | None = None
    source: str = "unknown"
    data_type: str = "multimodal"
