"""The text of annotations: clean-up, options and their letters, and queries about neighbouring moments."""

from collections.abc import Iterator, Sequence

from videomind.dataset.schema import Span, as_text
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
    """Name an option by its place: 0 is A."""
    return chr(ord("A") + index)


def place_of(name: str, num_options: int) -> int:
    """Find the place of an option by its letter: A is 0.

    Raises:
        ValueError: it is not the letter of one of so many options.
    """
    letters = [letter(i) for i in range(num_options)]
    if name not in letters:
        raise ValueError(f"the answer {name!r} is none of the letters {', '.join(letters)}")
    return letters.index(name)


def multiple_choice(question: str, options: Sequence[str]) -> str:
    """Compose the answerer's text for a question with options, which come without letters."""
    parts = PROMPTS["answerer_mcq"]
    listed = (parts["option"].format(letter=letter(i), Option=capitalize(o)) for i, o in enumerate(options))
    return parts["prefix"].format(question=question) + "".join(listed) + parts["suffix"]


def before_after(
    moments: Sequence[tuple[str, Span]], max_gap_s: float | None = None
) -> Iterator[tuple[str, Span]]:
    """Name moments by their neighbours.

    Two queries follow from each pair of successive moments: the one before the second, and the one after the
    first.

    Args:
        moments: text and [start, end] in s, in order.
        max_gap_s: pairs whose pause is not shorter are left out (overlapping ones never are); None keeps all.

    Yields:
        Query and moment.
    """
    for (first, first_span), (second, second_span) in zip(moments, moments[1:], strict=False):
        if max_gap_s is None or second_span[0] - first_span[1] < max_gap_s:
            yield f"The moment before {as_text(second)}", first_span
            yield f"The moment after {as_text(first)}", second_span
