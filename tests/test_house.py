"""The rules that keep the package a house: import directions, device knowledge, documentation, names, tests.

Covers `doors.py`.
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.rooms import BESIDE, FILES, FLOOR_OF, FLOORS, PACKAGE, ROOM_FILES, leads_elsewhere, room_of
from helpers.runs import REPO, environment

DEVICE_WORDS = re.compile(r"torch\.cuda|torch_npu|torch\.npu|['\"](?:nccl|hccl|gloo)['\"]|VISIBLE_DEVICES")
FULL_ROOM = 15  # files
LONG_FUNCTION = 60  # lines
# A module may have its own.
ENTRY_POINTS = {"main", "run", "train", "build_parser", "parse_arguments"}
SECTION = re.compile(r"\b(?:Args|Attributes|Returns|Yields|Raises):[ \t]+\S")
# How a description begins, where a function has to say what it does.
NO_VERBS = {"A", "All", "An", "Each", "Every", "How", "That", "The", "These", "This", "What", "When",
            "Where", "Whether", "Which", "Who", "Why"}  # fmt: skip
POINTER = re.compile(r"See `?[\w.]+`?[.;]")  # an override inherits its docstring without it
# Names that say that a thing is there, and not what it is; the rooms that do without them.
VAGUE = {"found", "given", "place", "wanted"}
NAMED_ROOMS = {"agent", "dataset", "encoding", "quickstart", "synthetic", *FLOORS[0]}
COVERS = re.compile(r"^Covers (.*?)\.$", re.M | re.S)


def imports(path: Path) -> Iterator[str]:
    """The first name below the package of every import of the package itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{a.name}" for a in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("videomind."))


@pytest.mark.parametrize("path", ROOM_FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    room = room_of(path)
    assert room in FLOOR_OF, f"{room} has no floor: give it one in FLOORS and in docs/ARCHITECTURE.md"
    crossed = {
        other
        for other in set(imports(path)) - {room, "__version__"}
        if FLOOR_OF[other] >= FLOOR_OF[room] and (room, other) not in BESIDE
    }
    assert not crossed, f"{room} must not import {crossed}"


def test_no_room_is_too_full():
    files = (path for path in ROOM_FILES if path.stem not in ("__init__", "__main__"))
    folders = Counter(path.parent for path in files if path.parent.name != "sub_classes")
    assert {str(folder): n for folder, n in folders.items() if n > FULL_ROOM} == {}


def test_device_knowledge_lives_in_one_file():
    found = [
        f"{path.relative_to(PACKAGE)}:{number}"
        for path in FILES
        if path != PACKAGE / "device.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if DEVICE_WORDS.search(line.split("#")[0])
    ]
    assert not found


def test_every_public_function_is_documented():
    """By itself or, where it overrides, by what it overrides."""
    missing = []
    for path in ROOM_FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            missing.append(str(path.relative_to(PACKAGE)))
        module = importlib.import_module(
            ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        )
        missing += [f"{path.relative_to(PACKAGE)} {name}" for name in undocumented(tree, module)]
    assert not missing


def undocumented(tree: ast.Module, module) -> Iterator[str]:
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield node.name
        for child in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                member = inspect.getattr_static(getattr(module, node.name), child.name)
                if not inspect.getdoc(member) and not inspect.getdoc(
                    getattr(getattr(module, node.name), child.name)
                ):
                    yield f"{node.name}.{child.name}"


def documented(path: Path) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, str]]:
    """Every function and class that has a docstring of its own."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
            yield node, text


def test_sections_of_docstrings_are_blocks():
    """Documentation tools read no "Args: x" on one line."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for path in ROOM_FILES
        for node, text in documented(path)
        if SECTION.search(text)
    ]
    assert not found


def test_functions_say_what_they_do():
    """In the imperative; a property is a thing and says which."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}: {text.splitlines()[0]}"
        for path in ROOM_FILES
        for node, text in documented(path)
        if isinstance(node, ast.FunctionDef) and not is_property(node)
        if text.split()[0] in NO_VERBS or POINTER.match(text)
    ]
    assert not found


def is_property(node: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_functions_fit_a_screen():
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for path in ROOM_FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= LONG_FUNCTION
    ]
    assert not found


def test_a_public_name_means_one_thing():
    places: dict[str, list[str]] = {}
    for path in ROOM_FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {
        name: where for name, where in places.items() if len(where) > 1 and name not in ENTRY_POINTS
    } == {}


def test_variables_are_named_by_what_they_hold():
    found = [
        f"{path.relative_to(PACKAGE)}:{line} {name}"
        for path in ROOM_FILES
        if room_of(path) in NAMED_ROOMS
        for line, name in variables(path)
        if name in VAGUE
    ]
    assert not found


def variables(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def covered() -> dict[str, str]:
    """What the tests say they cover beside the module of their own name, and which of them says so."""
    said = {}
    for path in sorted((REPO / "tests").rglob("test_*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for line in COVERS.findall(text):
            said |= dict.fromkeys(re.findall(r"`([^`]+)`", line), str(path.relative_to(REPO)))
    return said


def test_every_module_has_its_tests():
    """A file of its name, or one whose docstring says "Covers ..." of it or of its folder."""
    said = covered()
    gone = {name: test for name, test in said.items() if not (PACKAGE / name).exists()}
    assert gone == {}, "these cover what is not there"
    modules = [path.relative_to(PACKAGE) for path in ROOM_FILES if not path.stem.startswith("__")]
    without = [
        str(module)
        for module in modules
        if not (REPO / "tests" / module.parent / f"test_{module.name}").is_file()
        and str(module) not in said
        and not any(f"{folder}/" in said for folder in module.parents)
    ]
    assert without == [], "name them in the docstring of the file that tests them: Covers `room/module.py`."


def test_nothing_catches_everything():
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException"))
    ]
    assert not found


OLD_NAMES = [path for path in FILES if leads_elsewhere(path)]


@pytest.mark.parametrize("path", OLD_NAMES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_old_names_lead_to_todays_module(path):
    old = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    module = importlib.import_module(old)
    assert module.__name__ != old and callable(getattr(module, "main", None) or module.VideoMind)


def test_an_old_name_runs_as_a_command():
    for start in (["-m", "videomind.eval.judge"], [str(PACKAGE / "eval/judge.py")]):
        run = subprocess.run(
            [sys.executable, *start, "--help"], env=environment(), capture_output=True, text=True, check=True
        )
        assert "judge" in run.stdout
