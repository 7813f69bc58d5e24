"""The rules that keep the package a house: import directions, device knowledge, documentation."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "videomind"
FILES = sorted(PACKAGE.rglob("*.py"))
FORBIDDEN = {
    "model": {"dataset", "train", "eval", "synthetic", "cli", "demo"},
    "dataset": {"model", "train", "eval", "synthetic", "cli", "demo"},
    "train": {"eval", "synthetic", "cli", "demo"},
    "eval": {"train", "synthetic", "cli", "demo"},
    "synthetic": {"train", "eval", "cli", "demo"},
}
DEVICE_WORDS = re.compile(r"torch\.cuda|torch_npu|torch\.npu|['\"](?:nccl|hccl|gloo)['\"]|VISIBLE_DEVICES")


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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    folder = path.relative_to(PACKAGE).parts[0]
    crossed = set(imports(path)) & FORBIDDEN.get(folder, set())
    assert not crossed, f"{folder} must not import {crossed}"
    if path.name != "cli.py":
        assert "cli" not in set(imports(path))


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
    missing = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            missing.append(str(path.relative_to(PACKAGE)))
        scopes = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
        for node in (child for scope in scopes for child in scope.body):
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                missing.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}")
    assert not missing


def test_nothing_catches_everything():
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException"))
    ]
    assert not found
