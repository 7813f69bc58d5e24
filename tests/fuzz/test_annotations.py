"""Mutated annotation files: read, or refused with the file that is wrong; never a bare exception.

VIDEOMIND_FUZZ=50000 reads so many mutants; a few for each source and split by default.
"""

import os
import random
import shutil
from pathlib import Path

import pytest
from fuzz.mutating import OF_TEXTS, mutated

from videomind.dataset.base import get_source, source_names
from videomind.dataset.filters import Report

CASES = [(name, split) for name in source_names() for split in get_source(name).splits]
COUNT = max(12, int(os.environ.get("VIDEOMIND_FUZZ", 0)) // len(CASES))


@pytest.fixture(scope="module")
def tree(golden_tree, tmp_path_factory) -> Path:
    """A copy of the golden annotations, to be broken and mended."""
    return Path(
        shutil.copytree(golden_tree.root / "datasets", tmp_path_factory.mktemp("broken") / "datasets")
    )


def broken(source, split: str, file: Path) -> str | None:
    """What must not come of reading a split: a bare error, or one that names no file."""
    try:
        for anno in source.read(split, Report()):
            anno.to_dict()
    except ValueError as error:
        named = any(part.name in str(error) for part in file.parent.iterdir())
        return None if named else f"names no file: {error}"
    except Exception as error:  # what must not be
        return f"{type(error).__name__}: {error}"[:300]
    return None


@pytest.mark.golden
@pytest.mark.parametrize(("name", "split"), CASES, ids=[f"{name}@{split}" for name, split in CASES])
def test_mutated_annotations_are_read_or_refused_by_name(tree, monkeypatch, name, split):
    monkeypatch.chdir(tree)
    source = get_source(name)
    files = [path for path in source.files(split) if path.is_file()]
    if not files:
        pytest.skip(f"no golden rows of {name}@{split}")
    # Beside the annotations lie the tables that a source looks things up in.
    files += [path for path in files[0].parent.iterdir() if path.is_file() and path not in files]
    wrong = {}
    for index in range(COUNT):
        rng = random.Random(f"{name}@{split} {index}")
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(mutated(whole, rng, OF_TEXTS))
        try:
            if found := broken(source, split, file):
                wrong[f"{file.name} {index}"] = found
        finally:
            file.write_bytes(whole)
    assert wrong == {}
