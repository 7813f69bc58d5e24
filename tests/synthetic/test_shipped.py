"""The tiny base that comes with the code: whole, what its README says, and copied as it is."""

import json

import pytest
import torch

from videomind.model.checkpoint import LoadSettings, load_model
from videomind.synthetic import shipped
from videomind.synthetic.shipped import TINY_BASE, copy_shipped, folder_digest, shipped_files


def test_it_is_a_base_model_that_answers(tmp_path):
    copy_shipped(tmp_path / "base", folder_digest(TINY_BASE))
    loaded = load_model(tmp_path / "base", LoadSettings())
    with torch.no_grad():
        assert loaded.model(input_ids=torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def test_its_readme_names_its_digest_and_it_is_small():
    assert folder_digest(TINY_BASE) in (TINY_BASE / "README.md").read_text()
    assert sum(path.stat().st_size for path in shipped_files(TINY_BASE)) < 4 << 20


def test_a_copy_is_made_once_and_whole(tmp_path):
    copy_shipped(tmp_path / "base")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "base").iterdir()}
    copy_shipped(tmp_path / "base")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "base").iterdir()}
    for path in shipped_files(TINY_BASE):
        assert (tmp_path / "base" / path.name).read_bytes() == path.read_bytes()


def test_other_files_than_were_meant_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="has the digest"):
        copy_shipped(tmp_path / "base", "0" * 64)
    (tmp_path / "base").mkdir()
    (tmp_path / "base/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="does not hold a tiny base"):
        copy_shipped(tmp_path / "base")
    monkeypatch.setattr(shipped, "TINY_BASE", tmp_path / "none")
    with pytest.raises(ValueError, match="No tiny base in .*none"):
        copy_shipped(tmp_path / "copy")


def test_its_settings_are_those_of_the_warm_up():
    made_with = json.loads((TINY_BASE / "made_with.json").read_text())
    assert made_with["warm_up"]["short_steps"] > 0 and set(made_with["data"]) >= {"charades_sta", "nextqa"}
