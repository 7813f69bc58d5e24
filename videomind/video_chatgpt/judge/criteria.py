"""What predictions of Video-ChatGPT are judged by: the criteria, what a row holds, what the judge is told.

The criteria are those of https://arxiv.org/abs/2306.05424, section 4; the wording is this package's.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videomind.dataset.readers import read_rows

# What the judge sees -> what a prediction file calls it. Zero-shot inference writes the second names.
_ONE = {"q": ("Q", "question"), "a": ("A", "answer"), "pred": ("pred",)}
_TWO = {"q1": ("Q1",), "q2": ("Q2",), "a": ("A",), "pred1": ("pred1",), "pred2": ("pred2",)}
_LABELS = {
    "q": "Question",
    "q1": "First question",
    "q2": "Second question",
    "a": "Correct answer",
    "pred": "Given answer",
    "pred1": "Answer given to the first question",
    "pred2": "Answer given to the second question",
}
_NAMES = ("video_name", "id")


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One thing that answers are judged by.

    Attributes:
        name: on the command line.
        task: what the judge is to look at.
        fields: what it sees, and what rows call that.
        has_verdict: whether it also says if the answer is right.
    """

    name: str
    task: str
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _ONE)
    has_verdict: bool = False

    def prompt(self, fields: Mapping[str, str]) -> str:
        """Write what the judge is asked.

        Args:
            fields: of one row.
        """
        shown = "\n".join(f"{_LABELS[name]}: {text}" for name, text in fields.items())
        verdict = "'pred': 'yes' or 'no', whether the given answer is right, and " if self.has_verdict else ""
        example = "{'pred': 'yes', 'score': 4}" if self.has_verdict else "{'score': 4}"
        return (
            f"You grade answers to questions about a video. {self.task}\n\n{shown}\n\n"
            f"Reply with a Python dictionary and nothing else. It holds {verdict}'score': a whole number "
            f"from 0 (worst) to 5 (best). For example: {example}"
        )


CRITERIA = {
    criterion.name: criterion
    for criterion in (
        Criterion(
            name="correctness",
            task="Grade whether what the given answer states is right: it must agree with the correct answer "
            "and claim nothing that contradicts it. Other words for the same thing are as good.",
        ),
        Criterion(
            name="detail",
            task="Grade how detailed the given answer is: it should cover the points of the correct answer, "
            "and be specific about them rather than general.",
        ),
        Criterion(
            name="context",
            task="Grade whether the given answer has understood what the video is about: it should fit the "
            "setting and the main theme that the correct answer shows.",
        ),
        Criterion(
            name="temporal",
            task="Grade whether the given answer gets time right: what happens, in which order, and when, as "
            "in the correct answer.",
        ),
        Criterion(
            name="consistency",
            task="The two questions ask for the same thing in different words. Grade whether the two given "
            "answers agree with each other and with the correct answer.",
            fields=_TWO,
        ),
        Criterion(
            name="zero_shot_qa",
            task="Decide whether the given answer means the same as the correct one; synonyms and "
            "paraphrases are right. Then grade how well it matches.",
            has_verdict=True,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class AnsweredRow:
    """An answer to be judged.

    Attributes:
        key: its name in the results.
        fields: what the judge sees.
    """

    key: str
    fields: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Unscored:
    """An answer without a score.

    Attributes:
        key: its name in the results.
        reason: why.
        reply: the judge's last one, if there is one.
    """

    key: str
    reason: str
    reply: str | None = None


def read_answered_rows(path: str | Path, criterion: Criterion) -> tuple[list[AnsweredRow], list[Unscored]]:
    """Read the rows of a prediction file, and those that inference recorded an error for.

    The n-th row of a video has the key `<name>_<n>`, n from 0.

    Raises:
        ValueError: names the file and the row, counted from 0.
    """
    seen: Counter[str] = Counter()
    predictions, failures = [], []
    for number, row in enumerate(read_rows(path)):
        origin = f"{path}, row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{origin}, is a {type(row).__name__}, expected a mapping")
        name = str(_value(row, _NAMES, origin, (str, int)))
        key = f"{name}_{seen[name]}"
        seen[name] += 1
        if "error" in row:
            failures.append(Unscored(key=key, reason=f"no prediction: {row['error']}"))
            continue
        fields = {short: _value(row, names, origin, (str,)) for short, names in criterion.fields.items()}
        predictions.append(AnsweredRow(key=key, fields=fields))
    if not predictions and not failures:
        raise ValueError(f"{path} holds no prediction")
    return predictions, failures


def _value(row: dict, names: tuple[str, ...], origin: str, types: tuple[type, ...]) -> Any:
    """Get the first of some fields that a row has.

    Raises:
        ValueError: it has none, or of another type.
    """
    name = next((name for name in names if name in row), None)
    if name is None:
        raise ValueError(f"{origin}, has no {' or '.join(map(repr, names))}; it has {sorted(row)}")
    if not isinstance(row[name], types) or isinstance(row[name], bool):
        expected = " or ".join(t.__name__ for t in types)
        raise ValueError(f"{origin}: {name!r} is {row[name]!r}, expected {expected}")
    return row[name]
