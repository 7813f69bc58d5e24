"""Instructions to conversations: the recorded ones, which rows are kept, and bad rows."""

import json
import subprocess
import sys

import pytest
from helpers.goldens import Golden, golden_root
from helpers.runs import REPO, environment

from videomind.video_chatgpt.convert import main

GOLDEN = Golden(golden_root("video_chatgpt"))


@pytest.fixture
def folder(tmp_path):
    """A folder with the recorded names."""
    for name in GOLDEN.json("a_conversion/feature_folder_listing.json"):
        (tmp_path / "features" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "features" / name).touch()
    return tmp_path / "features"


def argv(source, out, *extra):
    return ["--input_json_file", str(source), "--output_json_file", str(out), *map(str, extra)]


@pytest.mark.golden
@pytest.mark.parametrize("expected", ["expected_all.json", "expected_filtered.json"])
def test_the_recorded_conversion(expected, folder, tmp_path, capsys):
    extra = ["--clip_feature_path", folder] if expected == "expected_filtered.json" else []
    out = tmp_path / "out.json"
    assert main(argv(GOLDEN.root / "a_conversion/input.json", out, *extra)) == 0
    assert json.loads(out.read_text()) == GOLDEN.json(f"a_conversion/{expected}")
    assert out.read_text().isascii()
    assert capsys.readouterr().out == GOLDEN.json("a_conversion/expected_stdout.json")[expected]


def test_what_is_left_out_is_said(tmp_path, capfd):
    rows = [{"q": "q", "a": "a", "video_id": name} for name in ("here", "there", "here.part", "here")]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    (tmp_path / "features").mkdir()
    (tmp_path / "features/here.x.pkl").touch()
    extra = ("--clip_feature_path", tmp_path / "features")
    assert main(argv(tmp_path / "in.json", tmp_path / "out.json", *extra)) == 0
    kept = json.loads((tmp_path / "out.json").read_text())
    assert [row["conversations"][0]["value"] for row in kept] == ["q\n<video>", "<video>\nq"]
    screen = capfd.readouterr().err
    assert "Left out 2 rows" in screen and "for 2 videos: here.part, there" in screen
    assert "1 of them have a dot in their id (here.part)" in screen


GOOD = {"q": "q", "a": "a", "video_id": "v"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([GOOD, ["q"]], "in.json, row 1, is a list"),
        ([GOOD, GOOD, {"q": "q", "video_id": "v"}], "in.json, row 2, has no 'a'"),
        ([{**GOOD, "q": 3}], "in.json, row 0: 'q' is 3, expected text"),
        ([{**GOOD, "video_id": None}], "row 0: 'video_id' is None"),
        ({"q": "q"}, "in.json holds a dict, expected a list of rows"),
    ],
)
def test_bad_rows_are_named(rows, words, tmp_path, capfd):
    (tmp_path / "in.json").write_text(json.dumps(rows))
    assert main(argv(tmp_path / "in.json", tmp_path / "out.json")) == 2
    assert words in capfd.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_missing_paths_are_one_line(tmp_path, capfd):
    (tmp_path / "in.json").write_text("[]")
    assert main(argv(tmp_path / "none.json", tmp_path / "out.json")) == 2
    extra = ("--clip_feature_path", tmp_path / "none")
    assert main(argv(tmp_path / "in.json", tmp_path / "out.json", *extra)) == 2
    screen = capfd.readouterr().err
    assert "none.json" in screen and "No folder of features" in screen and "Traceback" not in screen


def test_the_documented_script(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps([GOOD]))
    script = REPO / "scripts/convert_instruction_json_to_training_format.py"
    command = [sys.executable, str(script), *argv("in.json", "out.json")]
    env = environment()
    del env["PYTHONPATH"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "Total annotations retained: 1\n"), run.stderr
