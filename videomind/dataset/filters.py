"""Which annotations train, and why the others do not."""

from dataclasses import dataclass

from videomind.dataset.schema import Annotation
from videomind.dataset.views import View


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which annotations train; bounds are inclusive, -1 is off.

    Attributes: video length in s (annotations without a duration pass), words of the view's text.
    """

    min_video_len: float = -1
    max_video_len: float = -1
    min_num_words: int = -1
    max_num_words: int = -1

    def reason(self, anno: Annotation, view: View) -> str | None:
        """Why an annotation does not train, or None."""
        return self.examine(anno, view)[0]

    def examine(self, anno: Annotation, view: View) -> tuple[str | None, int]:
        """Why an annotation does not train, or None, and the number of words that was counted."""
        if problem := view.problem(anno):
            return problem, 0
        if anno.duration is not None and not _within(anno.duration, self.min_video_len, self.max_video_len):
            return "video length", 0
        num_words = view.num_words(anno)
        if not _within(num_words, self.min_num_words, self.max_num_words):
            return "number of words", num_words
        return None, num_words


ALL = Filters()


def _within(value: float, low: float, high: float) -> bool:
    return (low < 0 or value >= low) and (high < 0 or value <= high)
