"""docs/ARCHITECTURE.md says what is there: every room on its floor, every word as the code uses it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.rooms import FLOOR_OF, FLOORS, PACKAGE, ROOM_FILES, room_of
from helpers.runs import REPO

TEXT = (REPO / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
GLOSSARY = dict(re.findall(r"^\| ([a-z]+) \| (.+) \|$", TEXT, re.M))
ROOMS = re.findall(r"^\| (\d+) \| (?:`(\w+)(?:/|\.py)`|the ground) \|", TEXT, re.M)
# Where an identifier may have a word of the glossary; elsewhere it would mean something else.
PLACES = {
    "clip": {"model", "encoding", "eval", "train", "backbones", "synthetic"},
    "plan": {"agent", "dataset", "eval", "quickstart", "synthetic", "prediction", "roles"},
    "excerpt": {"video", "agent", "dataset", "encoding", "eval", "train", "synthetic"},
    "scorer": {"eval", "dataset", "agent", "prediction"},
    "recipe": {"runs", "train", "video_chatgpt", "quickstart"},
}
OTHER_WORDS = re.compile(r"clip_grad_norm|np\.clip|\.clip\(|CLIP|Clip")  # of libraries, and the tower


def identifiers(path: Path) -> Iterator[tuple[int, str]]:
    """Names that a file gives: functions, classes, arguments, variables, fields."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def test_every_room_stands_on_its_floor():
    told = {room or "the ground": int(floor) for floor, room in ROOMS}
    expected = {room: floor + 1 for room, floor in FLOOR_OF.items() if floor and room != "__main__"}
    assert told == {**expected, "the ground": 1}
    assert sorted(FLOORS[0]) == sorted(room for room, floor in FLOOR_OF.items() if not floor)


@pytest.mark.parametrize("word", sorted(PLACES))
def test_a_word_is_used_where_it_means_what_the_glossary_says(word):
    assert word in GLOSSARY
    found = [
        f"{path.relative_to(PACKAGE)}:{line} {name}"
        for path in ROOM_FILES
        if room_of(path) not in PLACES[word]
        for line, name in identifiers(path)
        if word in re.split(r"_|(?<=[a-z])(?=[A-Z])", name.lower()) and not OTHER_WORDS.search(name)
    ]
    assert not found


def test_classes_are_named_by_the_glossary():
    classes = {
        node.name
        for path in ROOM_FILES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    for word in ("annotation", "source", "view", "sample", "excerpt", "candidate", "plan", "role"):
        assert word.capitalize() in classes, word
    for word in ("prediction", "scorer", "recipe", "part"):
        assert word.capitalize() in classes, word
    for other in ("VideoClip", "Clip", "Window", "Moment"):
        assert other not in classes
