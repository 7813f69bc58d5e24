"""The records that flow through the data path: Annotation, then Sample, then a batch of tensors."""

from dataclasses import dataclass, fields
from typing import Any

from videomind.video.request import Excerpt

Span = list[float]  # [start, end], s
VIDEO = "<video>"  # where a question of VideoInstruct has the video


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """One labelled question or query about one video, as every source yields it.

    Attributes: source, the registered name; data_type, `grounding` or `multimodal` (a global
    micro-batch holds one type); video_path, a file or a list of image files; duration, s; span, the true
    moments, s; options without letters and ans, the right one's letter. The rest carries what single
    sources report. None means that the source does not give it. `meta` holds what only the source's scorer
    needs, by the keys that it has in predictions.
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
        """The fields that are set, in declaration order, and `meta`: what predictions start from."""
        named = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        meta = named.pop("meta", {})
        return {**named, **meta}


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingTarget:
    """The moments a `<|reg|>` token stands for: spans and duration, s."""

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
        source, data_type: of the annotation it came from.
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
