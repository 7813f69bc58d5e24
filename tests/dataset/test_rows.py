"""Every source on a few rows of its own: `rows/SOURCE.json` holds raw files and what they have to give.

The file has the name of the source's module. `files` maps paths below the data root to what they hold: a
value for .json and .pkl, rows for .jsonl and .parquet, lines for .txt and .csv; any other file is empty.
`gives` maps `NAME, NAME@SPLIT` to `annotations` (without `source` and `data_type`, which are the name and
the view's, unless the rows say them) and to what is counted: `skipped`, `dropped`, `noted`, `empty`. A data
set that only evaluates is read as for evaluation.

Covers `dataset/sub_classes/`.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from helpers.goldens import close
from pyarrow import parquet

from videomind.dataset.base import get_source, source_names

ROWS = Path(__file__).parent / "rows"
ROOT = "data"
COUNTED = ("skipped", "dropped", "noted", "empty")


def write_files(root: Path, files: dict[str, Any]) -> None:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match path.suffix:
            case ".json":
                path.write_text(json.dumps(value))
            case ".jsonl":
                path.write_text("".join(f"{json.dumps(row)}\n" for row in value))
            case ".txt" | ".csv":
                path.write_text("".join(f"{line}\n" for line in value))
            case ".pkl":
                path.write_bytes(pickle.dumps(value))
            case ".parquet":
                parquet.write_table(pyarrow.Table.from_pylist(value), path)
            case _:
                path.touch()


def told(name: str, split: str) -> dict[str, Any]:
    """What is loaded, as `gives` has it."""
    source = get_source(name, ROOT)
    loaded, kind = (
        source.to_predict(split) if source.only_evaluates else source.load(split),
        source.view.data_type,
    )
    annotations = []
    for anno in loaded.annotations:
        fields = anno.to_dict()
        for key, own in (("source", name), ("data_type", kind)):
            if fields.get(key) == own:
                del fields[key]
        annotations.append(fields)
    counted = {key: value for key in COUNTED if (value := getattr(loaded, key))}
    return {"annotations": annotations, **counted}


def rows_of(name: str) -> Path:
    return ROWS / f"{type(get_source(name)).__module__.rpartition('.')[2]}.json"


def expected(path: Path) -> dict[str, dict]:
    """What each `NAME@SPLIT` has to give."""
    gives = json.loads(path.read_text(encoding="utf-8"))["gives"]
    pairs = [(key.rpartition("@"), value) for key, value in gives.items()]
    return {f"{name}@{split}": value for (names, _, split), value in pairs for name in names.split(", ")}


CASES = [(path, key) for path in sorted(ROWS.glob("*.json")) for key in expected(path)]


@pytest.mark.parametrize(("path", "key"), CASES, ids=[key for _, key in CASES])
def test_rows_give_what_they_have_to(tmp_path, monkeypatch, path, key):
    monkeypatch.chdir(tmp_path)
    write_files(Path(ROOT), json.loads(path.read_text(encoding="utf-8"))["files"])
    name, _, split = key.partition("@")
    ours = told(name, split)
    assert close(ours.pop("annotations"), expected(path)[key]["annotations"])
    assert ours == {what: value for what, value in expected(path)[key].items() if what != "annotations"}


@pytest.mark.parametrize("name", source_names())
def test_every_source_has_rows_of_every_split(name):
    path = rows_of(name)
    assert path.is_file(), f"{name} has no rows: write tests/dataset/rows/{path.name} (see test_rows.py)"
    wanted = {f"{name}@{split}" for split in get_source(name).splits}
    lacking = wanted - expected(path).keys()
    assert not lacking, f"tests/dataset/rows/{path.name} does not say what {sorted(lacking)} give"
