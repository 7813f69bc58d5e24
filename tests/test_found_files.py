"""What one file says of another is found from it, wherever a command runs, and after a move.

Covers `dataset/sub_classes/verifying.py` and `dataset/sub_classes/mixed_planning.py`.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from videomind.dataset.commands import main as data
from videomind.dataset.parts import Entry, load_part
from videomind.files import found_from, written_from
from videomind.prediction import Prediction
from videomind.train.command_line.arguments import from_anywhere


@pytest.mark.parametrize("here", ["", "elsewhere", "project/data"])
@pytest.mark.parametrize("written", ["v.mp4", "videos/v.mp4", "../videos/v.mp4", "data/videos/v.mp4"])
def test_a_file_is_found_from_the_one_that_names_it(tmp_path, monkeypatch, here, written):
    """Beside it or from a folder above it; only what is not there is looked for where the command runs."""
    folder = tmp_path / "project/data/planning"
    place = tmp_path / "project" / written if written.startswith("data") else folder / written
    for path in (place, tmp_path / "elsewhere" / written.removeprefix("../")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / here)
    assert os.path.samefile(found_from(folder, written), place)
    assert found_from(folder, [written, str(place)])[1] == str(place)
    assert found_from(folder, "nowhere/v.mp4") == "nowhere/v.mp4" and found_from(folder, None) is None
    again = written_from(folder, found_from(folder, written))
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "project", moved)
    assert not os.path.isabs(again) and Path(found_from(moved / "data/planning", again)).is_file()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A file of questions, predictions of moments, and their video; commands run in the project."""
    project = tmp_path / "project"
    (project / "data/videos").mkdir(parents=True)
    (project / "data/videos/v.mp4").touch()
    asked = {"video": "videos/v.mp4", "duration": 9, "question": "why did it run?", "answer": "a dog"}
    (project / "data/qa.jsonl").write_text(json.dumps(asked))
    moment = {"video_path": "data/videos/v.mp4", "duration": 9, "query": "x", "span": [[1, 2]]}
    found = moment | {"pred": [[1, 2]], "conf": [1], "grounder_success": True}
    (project / "out").mkdir()
    (project / "out/output.jsonl").write_text(json.dumps(found))
    monkeypatch.chdir(project)
    return project


def make_all() -> None:
    plan = "data/planning/planning_nextqa_qvhighlights_gpt4o_mini.jsonl"
    Path(plan).parent.mkdir(exist_ok=True)
    for out in ("plans.jsonl", plan):
        assert data(["make-planning", "data/qa.jsonl", "--out", out]) == 0
    for out in ("verdicts.json", "data/verifying/verifying_didemo_2b.json"):
        assert data(["make-verifying", "out/output.jsonl", out]) == 0


@pytest.mark.parametrize("is_moved", [False, True])
def test_what_is_made_finds_its_videos_from_anywhere(project, tmp_path, monkeypatch, is_moved):
    """D509: also where videos of the same names lie below the folder in which a command runs."""
    make_all()
    if is_moved:
        project = project.rename(tmp_path / "moved")
    other = tmp_path / "other"
    for name in ("data/videos", "videos"):
        (other / name).mkdir(parents=True)
        (other / name / "v.mp4").touch()
    monkeypatch.chdir(other)
    names = (
        str(project / "plans.jsonl"),
        str(project / "verdicts.json"),
        "mixed_planning",
        "didemo_verify_2b",
    )
    for name in names:
        (anno,) = load_part(Entry(name=name), data_root=project / "data").annotations
        assert os.path.samefile(anno.video_path, project / "data/videos/v.mp4"), name


def test_a_rerun_from_elsewhere_makes_no_row_twice(project, monkeypatch):
    make_all()
    before = (project / "plans.jsonl").read_bytes()
    monkeypatch.chdir(project / "data")
    assert data(["make-planning", "qa.jsonl", "--out", "../plans.jsonl"]) == 0
    assert (project / "plans.jsonl").read_bytes() == before


def test_predictions_name_their_files_from_the_root(project):
    """D509."""
    anno = {"video_path": "data/videos/v.mp4", "subtitle_path": "s.srt", "query": "x"}
    kept = Prediction(annotation=anno).line()
    assert kept == anno | {"video_path": f"{project}/data/videos/v.mp4", "subtitle_path": f"{project}/s.srt"}
    assert Prediction(annotation={"video_path": ["a.jpg"]}).line()["video_path"] == [f"{project}/a.jpg"]


def test_a_recipe_names_its_files_from_the_root(project):
    argv = [
        "--data_root",
        "data",
        "--output_dir",
        "new",
        "--model_name_or_path",
        "Qwen/Qwen2-VL",
        "--role",
        "out",
    ]
    argv += ["--datasets", "data/qa.jsonl:0.5,nextqa@valid:2,tacos", "--lora_r", "4"]
    assert from_anywhere(argv) == [
        *(f"--data_root={project}/data", f"--output_dir={project}/new", "--model_name_or_path=Qwen/Qwen2-VL"),
        *("--role=out", f"--datasets={project}/data/qa.jsonl:0.5,nextqa@valid:2.0,tacos", "--lora_r=4"),
    ]
