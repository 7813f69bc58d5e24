"""Which files of a package a module is made of: what a cache of its results depends on."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = __name__.partition(".")[0]


def reached_files(starts: Iterable[Path], package: Path | None = None) -> list[Path]:
    """Find all files of the package that some files import, directly or through others.

    Imports are read from the source, so what a function imports when it is called counts too.

    Args:
        starts: source files, of the package or from outside.
        package: the package's folder; None is this one's.

    Returns:
        The files themselves and those they reach, sorted. Packages count with their `__init__.py`.
    """
    package = Path(__file__).parent if package is None else package
    seen: set[Path] = set()
    todo = [path.resolve() for path in starts]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += [file for name in imported_names(path) for file in _files_of(name, package.resolve())]
    return sorted(seen)


@cache
def imported_names(path: Path) -> tuple[str, ...]:
    """Read which names of the package a file imports, e.g. `videomind.spans.iou`."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return tuple(name for name in _imports(tree) if name.partition(".")[0] == PACKAGE)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files_of(name: str, package: Path) -> Iterator[Path]:
    """Yield the files that importing a name runs: its packages and its module.

    The root's `__init__.py` does no work and offers the whole package lazily, so it is not among them.
    """
    path = package
    for part in name.split(".")[1:]:
        if path != package and (init := path / "__init__.py").is_file():
            yield init
        if (module := path / f"{part}.py").is_file():
            yield module
            return
        path /= part
    if path != package and (init := path / "__init__.py").is_file():
        yield init
