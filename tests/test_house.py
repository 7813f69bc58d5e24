"""The rules that keep the package a house: import directions, device knowledge, documentation."""

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
from helpers.rooms import BESIDE, FILES, FLOOR_OF, PACKAGE, ROOM_FILES, leads_elsewhere, room_of
from helpers.runs import environment

DEVICE_WORDS = re.compile(r"torch\.cuda|torch_npu|torch\.npu|['\"](?:nccl|hccl|gloo)['\"]|VISIBLE_DEVICES")


FULL_ROOM = 15  # files


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
