"""The golden tree may be another one: nothing names its cases, and it may be packed in part."""

import lzma
import re
import shutil

import pytest
from helpers.goldens import (
    golden_bases,
    golden_checkpoints,
    golden_manifest,
    golden_root,
    output_names,
    read_golden,
)
from helpers.runs import REPO

# Ids of these say what is recorded, not of what: a test knows what a loss or a data set is.
KINDS = ("units", "optim", "datasets")
FORMS = {"check_ans", "compute_iou", "resize"}


def case_names() -> set[str]:
    """Ids of cases, and what their files, videos and models are called."""
    names = {*golden_bases(), *golden_bases(grow=True), *golden_checkpoints()}
    for section in golden_root().iterdir():
        if section.name in KINDS or not section.is_dir():
            continue
        for case in golden_manifest(section.name)["cases"]:
            names.add(case["id"])
            names |= {name for file in output_names(case) for name in (file, file.rpartition(".")[0])}
            if section.name == "videos":
                names.add(f"videos/{case['inputs'].rstrip('/')}")
    return {name for name in names - FORMS if re.search(r"[./\d_-].", name)}


def test_no_test_names_a_case():
    names = sorted(map(re.escape, case_names()))
    assert names
    quoted = re.compile(rf"[\"'/]({'|'.join(names)})[\"'/.]")
    found = {
        f"{path.relative_to(REPO)}:{number}": quoted.findall(line)
        for path in sorted((REPO / "tests").rglob("*.py"))
        if (REPO / "tests/golden") not in path.parents
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    }
    assert {place: names for place, names in found.items() if names} == {}


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_manifest_may_be_packed(tmp_path, monkeypatch, is_packed):
    manifest = golden_root() / "units/manifest.json"
    expected = read_golden("units/manifest.json")
    (tmp_path / "units").mkdir()
    if is_packed:
        (tmp_path / "units/manifest.json.xz").write_bytes(lzma.compress(manifest.read_bytes()))
    else:
        shutil.copy(manifest, tmp_path / "units")
    monkeypatch.setenv("VIDEOMIND_GOLDEN", str(tmp_path))
    assert read_golden("units/manifest.json") == golden_manifest("units") == expected
