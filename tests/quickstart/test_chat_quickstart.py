"""The quickstart of Video-ChatGPT as a newcomer runs it: it learns, its rerun makes nothing anew.

Covers `quickstart/chat.py`.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
from helpers.runs import REPO, environment

from videomind.video_chatgpt.infer import main as chat

SCRIPT = str(REPO / "scripts/quickstart/video_chatgpt.sh")


def quickstart(folder: Path) -> str:
    """What it said."""
    run = subprocess.run(
        ["bash", SCRIPT], env=environment(QUICKSTART_DIR=str(folder)), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return run.stdout


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a first run, and what it said."""
    folder = tmp_path_factory.mktemp("quickstart") / "work"
    return folder, quickstart(folder)


@pytest.fixture(scope="module")
def done(ran) -> Path:
    return ran[0]


@pytest.mark.slow
def test_it_learns_on_held_out_videos_and_phrasings(done):
    runs = json.loads((done / "results.json").read_text())["zero_shot_qa"]
    assert runs["trained"]["samples"] == runs["untrained"]["samples"] == 120
    assert runs["trained"]["accuracy"] - runs["untrained"]["accuracy"] >= 30
    assert runs["trained"]["accuracy"] >= 60
    told = {
        row["q"].lower() for row in json.loads((done / "data/video_chatgpt/instructions.json").read_text())
    }
    assert not told & {
        row["question"].lower() for row in json.loads((done / "after/answers.json").read_text())
    }


def written(folder: Path) -> dict[Path, int]:
    """When each file got its content."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_second_run_makes_nothing_anew_and_says_the_same(ran):
    done, first = ran
    before = written(done)
    said = quickstart(done)
    assert written(done) == before

    def results(text: str) -> str:
        """What stands below the last step's line, without the times."""
        return re.sub(r"\[ *\d+ s\]", "", text[text.index("Results on") :]).partition("\n")[2]

    assert results(said) == results(first) and "zero_shot_qa" in results(said)


@pytest.mark.slow
def test_its_checkpoint_answers(done, capsys):
    video = min((done / "data/video_chatgpt/test_videos").iterdir())
    argv = ["--model-name", str(done / "video_chatgpt"), "--vision_tower", str(done / "base/clip")]
    argv += ["--conv-mode", "vicuna_v1_1", "--temperature", "0", "--video_path", str(video)]
    assert chat([*argv, "--question", "What colour is the object?"]) == 0
    assert re.fullmatch(r"It is \w+\.\n", capsys.readouterr().out)


def test_an_unknown_argument_is_refused():
    run = subprocess.run(["bash", SCRIPT, "--fersh"], env=environment(), capture_output=True, text=True)
    assert run.returncode == 2 and "usage: bash scripts/quickstart.sh [video_chatgpt] [--fresh]" in run.stderr
