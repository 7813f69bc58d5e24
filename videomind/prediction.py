"""Prediction: what the agent found for one annotation, a line of output.jsonl; and what a run predicts.

The agent writes them, evaluation reads them. The keys of a line are those of the published format, so that
files of the original read as well; here alone they are spelled.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from videomind.files import in_each, read_json, write_json

# In the folder of a run: its predictions, what they depend on, and which split they are of.
RESULT = "output.jsonl"
SETTINGS = "settings.json"
SPLIT_FILE = "split.json"
UNKNOWN = "unknown"  # the source or the task of a record that names none
_FILES = ("video_path", "subtitle_path")  # keys of an annotation
_SHOWN = 80  # characters of a wrong value in a message


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One annotation with what was found for it. None is what did not run, or was not found.

    Attributes:
        annotation: the annotation's fields, and whatever else a file holds, by their keys.
        error: why the sample failed; then there is nothing else.
        video_problems: what is wrong with the video as it was seen, one line each; used all the same.
        memory_fallbacks: steps that were made smaller because the device's memory was too small.
        agents: the roles that ran.
        planner_response: the plan as it was said.
        planner_parsed_query: what the plan wants found instead of the question, as it stood there.
        planner_unparsable: whether the plan could not be read.
        grounder_response: what the grounder said.
        grounder_success: whether it pointed at a moment.
        pred: moments [start, end], s, best first.
        conf: the grounder's score of each of `pred`.
        probs: the verifier's score of the judged ones, in the grounder's order.
        ranks: places of `pred` in the grounder's order.
        pred_ori: the moments in the grounder's order, s.
        conf_ori: the score of each of `pred_ori`.
        answerer_response: what the answerer said.
        response: the answer.
        keys: the keys of the line that it was read from, in their order.
    """

    annotation: Mapping[str, Any]
    error: str | None = None
    video_problems: list[str] | None = None
    memory_fallbacks: list[str] | None = None
    agents: list[str] | None = None
    planner_response: str | None = None
    planner_parsed_query: Any = None
    planner_unparsable: bool | None = None
    grounder_response: str | None = None
    grounder_success: bool | None = None
    pred: list[list[float]] | None = None
    conf: list[float] | None = None
    probs: list[float] | None = None
    ranks: list[int] | None = None
    pred_ori: list[list[float]] | None = None
    conf_ori: list[float] | None = None
    answerer_response: str | None = None
    response: str | None = None
    keys: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The registered name of the data set."""
        return self.annotation.get("source") or UNKNOWN

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of all tasks that the annotation counts in."""
        task = self.annotation.get("task") or UNKNOWN
        return tuple(map(str, task)) if isinstance(task, list) else (str(task),)

    @property
    def duration(self) -> float | None:
        """Length of the video, s."""
        return self.annotation.get("duration")

    def to_json(self) -> dict[str, Any]:
        """Make the line's JSON object; nothing that the line held when it was read is left out."""
        own = {name: value for name in _FORMS if (value := getattr(self, name)) is not None}
        return dict.fromkeys(self.keys) | dict(self.annotation) | own

    def line(self) -> dict[str, Any]:
        """Make the object that a file holds: its own files are named from the root, wherever it is read."""
        row = self.to_json()
        return row | {name: in_each(os.path.abspath, row[name]) for name in _FILES if name in row}

    @classmethod
    def from_json(cls, row: Any) -> "Prediction":
        """Read a line's JSON object.

        Raises:
            ValueError: it is none, or what was found has another form than the published one.
        """
        if not isinstance(row, dict):
            raise ValueError(f"a JSON {type(row).__name__}, expected a record ({{...}})")
        own = {name: row[name] for name in _FORMS if row.get(name) is not None}
        for name, value in own.items():
            has_form, form = _FORMS[name]
            if not has_form(value):
                raise ValueError(f"{name!r} is {str(value)[:_SHOWN]}, expected {form}")
        if not isinstance(source := row.get("source") or UNKNOWN, str):
            raise ValueError(f"'source' is {str(source)[:_SHOWN]}, expected text")
        annotation = {name: value for name, value in row.items() if name not in _FORMS}
        return cls(annotation=annotation, keys=tuple(row), **own)


@dataclass(frozen=True, kw_only=True)
class PredictedSplit:
    """What a run predicts; a small file beside its predictions.

    Attributes:
        dataset: as the command line names it.
        split: its name.
        scorer: how the predictions are scored, as `Source.scorer` names it.
        samples: how many there are to predict.
        dropped: reason to count of annotations that were left out before.
    """

    dataset: str
    split: str
    scorer: str
    samples: int
    dropped: Mapping[str, int]

    def write(self, folder: Path) -> None:
        """Write it into the folder of a run."""
        write_json(folder / SPLIT_FILE, {**asdict(self), "dropped": dict(self.dropped)})

    @classmethod
    def read(cls, folder: Path) -> "PredictedSplit | None":
        """Read it from the folder of a run; None where predictions were written by something else.

        Raises:
            ValueError: the file holds something else.
        """
        path = folder / SPLIT_FILE
        if not path.is_file():
            return None
        row = read_json(path)
        names = {field.name for field in fields(cls)}
        if not isinstance(row, dict) or row.keys() != names:
            raise ValueError(f"{path} does not hold what a run predicts ({', '.join(sorted(names))})")
        return cls(**row)


def read_predictions(rows: Iterable[tuple[str, Any]]) -> list[Prediction]:
    """Read the JSON objects of several lines.

    Args:
        rows: where each stands, for messages, and the object.

    Raises:
        ValueError: one is no record; the message says where it stands.
    """
    predictions = []
    for where, row in rows:
        try:
            predictions.append(Prediction.from_json(row))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return predictions


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _are_spans(value: Any) -> bool:
    return isinstance(value, list) and all(_are_numbers(span) and len(span) == 2 for span in value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_Form = tuple[Callable[[Any], bool], str]
_TEXT: _Form = (lambda value: isinstance(value, str), "text")
_FLAG: _Form = (lambda value: isinstance(value, bool), "true or false")
_SCORES: _Form = (_are_numbers, "a list of numbers")
_MOMENTS: _Form = (_are_spans, "[[start, end], ...] in seconds")
# What a line holds beside the annotation, in the order in which it is written.
_FORMS: dict[str, _Form] = {
    "error": _TEXT,
    "video_problems": (_are_texts, "a list of lines"),
    "memory_fallbacks": (_are_texts, "a list of lines"),
    "agents": (_are_texts, "a list of names"),
    "planner_response": _TEXT,
    "planner_parsed_query": (lambda value: True, "anything"),
    "planner_unparsable": _FLAG,
    "grounder_response": _TEXT,
    "grounder_success": _FLAG,
    "pred": _MOMENTS,
    "conf": _SCORES,
    "probs": _SCORES,
    "ranks": _SCORES,
    "pred_ori": _MOMENTS,
    "conf_ori": _SCORES,
    "answerer_response": _TEXT,
    "response": _TEXT,
}
PUBLISHED_KEYS = frozenset(_FORMS)
