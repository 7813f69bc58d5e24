"""Where the golden data is and what it holds; `$VIDEOMIND_GOLDEN` names another folder than tests/golden."""

import json
import os
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def golden_root() -> Path:
    """The folder that holds the `videomind/` section tree (the folder itself may be that tree)."""
    root = Path(os.environ.get("VIDEOMIND_GOLDEN") or HERE / "golden").resolve()
    return root / "videomind" if (root / "videomind").is_dir() else root


def golden_manifest(section: str) -> dict:
    """A section's manifest; read while collecting, so that every case becomes a test of its own."""
    return json.loads((golden_root() / section / "manifest.json").read_text(encoding="utf-8"))


def golden_ids(section: str) -> list[str]:
    """The case ids of a section."""
    return [case["id"] for case in golden_manifest(section)["cases"]]


def golden_bases(*, grow: bool = False) -> list[str]:
    """Base models of the tree; with `grow` those whose tables are too short for the special tokens."""
    cases = golden_manifest("base")["cases"]
    return [f"base/{case['id']}" for case in cases if case["resize_needed_for_3_tokens"] == grow]


def golden_checkpoints() -> list[str]:
    """Role checkpoints of the tree."""
    inputs = [case["inputs"] for case in golden_manifest("model")["cases"]]
    return sorted({i["checkpoint"] for i in inputs if isinstance(i, dict) and "checkpoint" in i})


class Golden:
    """The unpacked golden tree."""

    def __init__(self, root: Path):
        self.root = root

    def case(self, section: str, case_id: str) -> dict:
        """One manifest entry."""
        return next(c for c in self.manifest(section)["cases"] if c["id"] == case_id)

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
