"""Where the golden data is and what it holds; `$VIDEOMIND_GOLDEN` names another folder than tests/golden."""

import json
import lzma
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomind.dataset.schema import Sample

HERE = Path(__file__).parents[1]
REACH = 1e-5  # of a video: how far a moment that two machines compute may be apart (measured: 3e-7)


def golden_root(tree: str = "videomind") -> Path:
    """The folder that holds a tree, `videomind` or `video_chatgpt` (the folder itself may be that tree)."""
    root = Path(os.environ.get("VIDEOMIND_GOLDEN") or HERE / "golden").resolve()
    return root / tree if (root / tree).is_dir() else root


def read_golden(path: str) -> Any:
    """A JSON file of the tree, packed or not; for what is needed before the tree is unpacked."""
    file = golden_root() / path
    packed = file.with_name(f"{file.name}.xz")
    return json.loads(lzma.decompress(packed.read_bytes()) if packed.is_file() else file.read_bytes())


def golden_manifest(section: str) -> dict:
    """A section's manifest; read while collecting, so that every case becomes a test of its own."""
    return read_golden(f"{section}/manifest.json")


def golden_ids(section: str) -> list[str]:
    """The case ids of a section."""
    return [case["id"] for case in golden_manifest(section)["cases"]]


def golden_rows(path: str) -> list:
    """The rows of a recorded table, each to become a test of its own with its place as id."""
    file = golden_root() / path
    packed = file.with_name(f"{file.name}.xz")
    content = lzma.decompress(packed.read_bytes()) if packed.is_file() else file.read_bytes()
    rows = json.loads(content)
    assert rows, f"{file} holds no case"
    return [pytest.param(row, id=f"{file.stem}-{i}") for i, row in enumerate(rows)]


def slow_if_untied(case_id: str, case: object = None):
    """A case as parameter of a test, by default its id; of two models the second is slow."""
    marks = pytest.mark.slow if ".untied" in case_id else ()
    return pytest.param(case or case_id, id=case_id, marks=marks)


def output_names(case: dict) -> list[str]:
    """The files that a case recorded, as they are called when unpacked; none where it holds facts."""
    names = case["outputs"] if isinstance(case["outputs"], list) else [case["outputs"]]
    return [name.removesuffix(".xz") for name in names if isinstance(name, str)]


def golden_bases(*, grow: bool = False) -> list[str]:
    """Base models of the tree; with `grow` those whose tables are too short for the special tokens."""
    cases = golden_manifest("base")["cases"]
    return [f"base/{case['id']}" for case in cases if case["resize_needed_for_3_tokens"] == grow]


def golden_checkpoints() -> list[str]:
    """Role checkpoints of the tree."""
    inputs = [case["inputs"] for case in golden_manifest("model")["cases"]]
    return sorted({i["checkpoint"] for i in inputs if isinstance(i, dict) and "checkpoint" in i})


def close(ours, theirs) -> bool:
    """Whether two JSON values are equal, floats within 1e-9."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(close(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    if isinstance(ours, float) or isinstance(theirs, float):
        return ours == pytest.approx(theirs, abs=1e-9, rel=1e-9)
    return ours == theirs


def assert_same_window(ours, recorded, exact, *, unit_s: float, duration_s: float) -> None:
    """Two windows on a grid are equal, but for an end that is too close to the middle of a cell to tell.

    Args: exact, the window before rounding, s. All three are (start, end).
    """
    for mine, theirs, time in zip(ours, recorded, exact, strict=True):
        if mine != pytest.approx(theirs, abs=1e-6):
            assert abs(mine - theirs) < 1.001 * unit_s, (ours, recorded)
            assert abs((mine + theirs) / 2 - time) <= REACH * duration_s, (ours, recorded, exact)


def in_seconds(boundaries, duration_s: float) -> np.ndarray:
    """Windows before rounding, (N, 2), s. Args: boundaries (N, 2 or more), fractions of the video."""
    return (np.asarray(boundaries, dtype=np.float64)[:, :2] * duration_s).clip(0, duration_s)


def escaped_plan_fix(sample: Sample, recorded: str) -> Sample:
    """D107: the original put queries into the plan unescaped.

    Where that gave invalid JSON, ours is valid and means the same; the rest of the case is then compared
    with the recorded text.
    """
    if sample.role != "planner" or sample.response == recorded:
        return sample
    with pytest.raises(json.JSONDecodeError):
        json.loads(recorded)
    value = json.loads(sample.response)[0]["value"]
    assert sample.response.replace(json.dumps(value, ensure_ascii=False)[1:-1], value) == recorded
    return replace(sample, response=recorded)


class Golden:
    """The unpacked golden tree."""

    def __init__(self, root: Path):
        self.root = root

    def case(self, section: str, case_id: str) -> dict:
        """One manifest entry."""
        return next(c for c in self.manifest(section)["cases"] if c["id"] == case_id)

    def output(self, section: str, case_id: str, suffix: str) -> Path | None:
        """The file of a kind that a case recorded; None where the original came to no such result."""
        found = [name for name in output_names(self.case(section, case_id)) if name.endswith(suffix)]
        path = self.root / section / found[0] if found else None
        return path if path is not None and path.is_file() else None

    def recorded(self, section: str, case_id: str) -> tuple[dict, dict[str, np.ndarray] | None]:
        """A case's .json and its arrays; None instead of arrays where the original failed."""
        facts, arrays = (self.output(section, case_id, suffix) for suffix in (".json", ".npz"))
        facts = json.loads(facts.read_text(encoding="utf-8")) if facts else {}
        if arrays is not None:
            return facts, self.npz(str(arrays.relative_to(self.root)))
        failed = "error" in facts or "raises" in self.case(section, case_id)["tolerance"]
        assert failed, f"{section} {case_id} recorded neither arrays nor an error"
        return facts, None

    def manifest(self, section: str) -> dict:
        """A section's manifest."""
        return self.json(f"{section}/manifest.json")

    def json(self, path: str):
        """A JSON file of the tree."""
        return json.loads((self.root / path).read_text(encoding="utf-8"))

    def npz(self, path: str) -> dict[str, np.ndarray]:
        """All arrays of an .npz file."""
        with np.load(self.root / path) as arrays:
            return {name: arrays[name] for name in arrays.files}
