"""The text of annotations: clean-up, options and their letters, and queries about neighbouring moments."""

from collections.abc import Iterator, Sequence

from videomind.dataset.schema import Span
from videomind.roles import PROMPTS


def clean_question(text: str) -> str:
    """Collapse white space and trim."""
    return " ".join(text.split())


def clean_query(text: str) -> str:
    """Collapse white space, trim, and strip dots from both ends."""
    return clean_question(text).strip(".").strip()


def capitalize(text: str) -> str:
    """Upper-case the first character and leave the rest."""
    return text[:1].upper() + text[1:]


def letter(index: int) -> str:
    """The letter of an option by its position: 0 is A."""
    return chr(ord("A") + index)


def multiple_choice(question: str, options: Sequence[str]) -> str:
    """The answerer's text for a question with options. Args: options without letters."""
    parts = PROMPTS["answerer_mcq"]
    listed = (parts["option"].format(letter=letter(i), Option=capitalize(o)) for i, o in enumerate(options))
    return parts["prefix"].format(question=question) + "".join(listed) + parts["suffix"]


def before_after(
    moments: Sequence[tuple[str, Span]], max_gap_s: float | None = None
) -> Iterator[tuple[str, Span]]:
    """Queries that name a moment by its neighbour.

    Two follow from each pair of successive moments: the one before the second, and the one after the
    first.

    Args: moments, (text, [start, end] in s) in order; max_gap_s, pairs whose pause is not shorter are
    left out (overlapping ones never are); None keeps all.
    """
    for (first, first_span), (second, second_span) in zip(moments, moments[1:], strict=False):
        if max_gap_s is None or second_span[0] - first_span[1] < max_gap_s:
            yield f"The moment before {second}", first_span
            yield f"The moment after {first}", second_span
