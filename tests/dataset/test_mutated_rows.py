"""Rows of another shape: whatever is wrong with one, the error names its file and place, or it is counted.

Every row of the golden files is broken in many ways: each value within it is left out or replaced by others,
one at a time.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from videomind.dataset.base import get_source, source_names
from videomind.dataset.filters import Report

LEFT_OUT = object()
TEXTS = ("text", "", "x" * 5_000, "\0", "\ud800")
OTHERS = (None, True, 7, -1, float("nan"), 1e400, *TEXTS, [], ["text"], {}, {"x": 1})
PLACE = re.compile(r", (row|line) \d+( \(.*\))?, does not fit ")
# What a source takes in any type, or does without.
FREE = {
    "clip", "data_type", "duration_group", "level", "qid", "question_category", "relevant", "source",
    # absent where a split or a row has no labels, or a file of another version
    "ans", "answer", "correct_choice", "options", "relevant_windows", "span", "task", "type",
    # what only training needs, so that its lack is counted there
    "duration", "query", "question", "route", "v_duration", "video_path",
    # categories of reports
    "category", "question_type", "sub_category", "domain", "time_reference",
}  # fmt: skip


class Mutation(NamedTuple):
    """A row with one thing wrong: where, what was there and what is now, and the whole row."""

    place: tuple
    before: object
    after: object
    row: object

    def changes_type(self) -> bool:
        """Whether another type stands there, where the source has to care."""
        free = next((key for key in reversed(self.place) if isinstance(key, str)), None) in FREE
        numbers = (int, float)
        alike = type(self.before) is type(self.after) or {type(self.before), type(self.after)} <= set(numbers)
        # A list may be shorter, and a boolean is a number to Python.
        shorter = self.after is LEFT_OUT and (isinstance(self.place[-1], int) or "." in self.place[-1])
        return not (free or alike or shorter or (type(self.before) in numbers and self.after is True))


def mutations(row) -> Iterator[Mutation]:
    places: list[tuple] = [()]
    while places:
        place = places.pop()
        here = row
        for key in place:
            here = here[key]
        if isinstance(here, dict):
            places += [(*place, key) for key in here]
        elif isinstance(here, list | tuple):
            places += [(*place, i) for i in range(len(here))]
        for other in (LEFT_OUT, *OTHERS) if place else OTHERS:
            yield Mutation(place, here, other, changed(row, place, other))


def changed(value, place: tuple, other: object):
    if not place:
        return other
    key, *rest = place
    made = list(value) if isinstance(value, list | tuple) else dict(value)
    if rest:
        made[key] = changed(value[key], tuple(rest), other)
    elif other is LEFT_OUT:
        del made[key]
    else:
        made[key] = other
    return tuple(made) if isinstance(value, tuple) else made


def read(source, split: str, path: Path, row, monkeypatch) -> tuple[list[dict] | str, Report]:
    """The annotations of one row, or the error that it is; and what was counted."""
    report = Report()
    with monkeypatch.context() as patch:
        patch.setattr(source, "files", lambda split: [path])
        patch.setattr(source, "rows", lambda path, split: iter([row]))
        try:
            return [anno.to_dict() for anno in source.read(split, report)], report
        except ValueError as error:
            return str(error), report


CASES = [(name, split) for name in source_names() for split in get_source(name).splits]


@pytest.mark.golden
@pytest.mark.parametrize(("name", "split"), CASES, ids=[f"{name}@{split}" for name, split in CASES])
def test_what_is_wrong_with_a_row_is_said_with_its_place(golden, monkeypatch, name, split):
    monkeypatch.chdir(golden.root / "datasets")
    source = get_source(name)
    if not all(path.is_file() for path in source.files(split)):
        pytest.skip(f"no golden rows of {name}@{split}")
    for path in source.files(split):
        for row in list(source.rows(path, split))[:3]:
            whole, _ = read(source, split, path, row, monkeypatch)
            for mutation in mutations(row):
                found, report = read(source, split, path, mutation.row, monkeypatch)
                if isinstance(found, str):
                    assert found.startswith(str(path)) and PLACE.search(found), (mutation, found)
                elif mutation.changes_type():
                    # Nobody reads the value, or the row is left out and counted.
                    assert repr(found) == repr(whole) or report.skipped, mutation
