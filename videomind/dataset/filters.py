"""Which annotations are used and why others are not; what is odd about those that are."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from videomind.dataset.phrases import letter
from videomind.dataset.schema import Annotation, Span
from videomind.dataset.views import View
from videomind.spans import what_is_odd

NO_DURATION = "duration is not a positive number"
NO_SPAN = "span is not a number"


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which annotations train; bounds are inclusive, -1 is off.

    Attributes:
        min_video_len: s; annotations without a duration pass.
        max_video_len: s.
        min_num_words: of the view's text.
        max_num_words: of the view's text.
    """

    min_video_len: float = -1
    max_video_len: float = -1
    min_num_words: int = -1
    max_num_words: int = -1

    def reason(self, anno: Annotation, view: View) -> str | None:
        """Say why an annotation does not train, or None."""
        return self.examine(anno, view)[0]

    def examine(self, anno: Annotation, view: View) -> tuple[str | None, int]:
        """Say why an annotation does not train, or None, and the number of words that was counted."""
        if problem := view.problem(anno):
            return problem, 0
        if anno.duration is not None and not _is_within(
            anno.duration, self.min_video_len, self.max_video_len
        ):
            return "video length", 0
        num_words = view.num_words(anno)
        if not _is_within(num_words, self.min_num_words, self.max_num_words):
            return "number of words", num_words
        return None, num_words


ALL = Filters()


def _is_within(value: float, low: float, high: float) -> bool:
    return (low < 0 or value >= low) and (high < 0 or value <= high)


@dataclass(kw_only=True)
class Report:
    """What reading a split found.

    Attributes:
        num_rows: items of the files that are read one by one, of this split.
        skipped: reason to number of rows that gave nothing, or not all; a row may be a whole video.
        dropped: reason to number of annotations that were left out.
        noted: oddity to number of annotations that were kept although.
        empty: annotation files without a row.
    """

    num_rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def findings(self) -> list[str]:
        """Write lines for a log, one for each thing that a user should know of."""
        lines = [f"{path} holds no row" for path in self.empty]
        for counts, what in (
            (self.skipped, "rows left out"),
            (self.dropped, "annotations left out"),
            (self.noted, "annotations kept, although"),
        ):
            lines += [f"{count} {what}: {reason}" for reason, count in sorted(counts.items())]
        return lines


def fault(anno: Annotation) -> str | None:
    """Say why nobody could learn from an annotation, or None."""
    if anno.duration is not None and not _is_duration(anno.duration):
        return NO_DURATION
    if not _are_numbers([*(anno.span or ()), *(() if anno.pred is None else (anno.pred,))]):
        return NO_SPAN
    return "empty query" if anno.query == "" and not anno.question else None


def _is_duration(value: float) -> bool:
    return 0 < value < math.inf


def _are_numbers(spans: Sequence[Span]) -> bool:
    return all(math.isfinite(time) for span in spans for time in span)


def mended(anno: Annotation) -> tuple[Annotation, list[str]]:
    """Let an annotation be predicted for although parts of it cannot be used.

    Without its duration the video's own counts; without its moments it is one without ground truth.

    Returns:
        The annotation without those parts, and what they were.
    """
    lost = {}
    if anno.duration is not None and not _is_duration(anno.duration):
        lost["duration"] = NO_DURATION
    if not _are_numbers(anno.span or ()):
        lost["span"] = NO_SPAN
    return (replace(anno, **dict.fromkeys(lost)), list(lost.values())) if lost else (anno, [])


def oddities(anno: Annotation) -> list[str]:
    """Say what is strange about an annotation that is kept."""
    remarks = what_is_odd(anno.span or (), anno.duration)
    if anno.options is not None and anno.answer is not None:
        remarks += _answer_oddities(anno.options, anno.answer, anno.ans)
    return remarks


def _answer_oddities(options: list[str], answer: str, ans: str | None) -> list[str]:
    matches = [i for i, option in enumerate(options) if option == answer]
    if not matches:
        return ["answer is not among the options"]
    if ans is not None and ans not in map(letter, matches):
        return ["the answer's letter is that of another option"]
    return ["several options are the answer"] if len(matches) > 1 else []
