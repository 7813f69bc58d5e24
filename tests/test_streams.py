"""Who reads the screen, or nobody, makes no difference to what a command does, nor does its encoding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.runs import REPO, environment

# Says many lines on both streams and writes a file in between; argv: the file.
PROGRAM = """
import logging, sys
from pathlib import Path
from tqdm import tqdm
from videomind.logger import run_command

def run(_):
    for number in tqdm(range(3000), mininterval=0):
        sys.stdout.write("a line on standard output\\n")
        logging.getLogger("x").info("a line on standard error")
    Path(sys.argv[1]).write_text("done")

sys.exit(run_command(lambda: None, run))
"""
REDIRECTIONS = {
    "nobody reads its output": "| true",
    "somebody stops reading": "| head -n 1",
    "nobody reads its errors": "2> >(true)",
    "nobody reads anything": "2>&1 | true",
    "closed output": ">&-",
    "closed errors": "2>&-",
    "closed streams": "<&- >&- 2>&-",
    "errors on a full disk": "2> /dev/full",
}


@pytest.mark.parametrize("case", REDIRECTIONS)
def test_streams_that_end_do_not_end_a_run(case, tmp_path):
    words = 'set -o pipefail; "$PYTHON" -c "$PROGRAM" "$0" ' + REDIRECTIONS[case]
    run = subprocess.run(
        ["bash", "-c", words, str(tmp_path / "out")],
        env=environment(PROGRAM=PROGRAM),
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, (tmp_path / "out").read_text()) == (0, "done"), run.stderr
    assert "Traceback" not in run.stderr and "Exception ignored" not in run.stderr


@pytest.fixture
def predictions(tmp_path) -> Path:
    rows = [{"video_path": "v.mp4", "span": [[0, 10]], "pred": [[0, 5]], "conf": [0.9], "task": "é 🎬"}]
    path = tmp_path / "run" / "output.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(*argv: str, output: int = subprocess.PIPE, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "videomind.cli", *argv],
        env=environment(**variables),
        cwd=REPO,
        stdout=output,
        stderr=subprocess.PIPE,
    )


def test_a_report_that_has_no_room_is_an_error_after_the_files_are_written(predictions):
    with open("/dev/full", "w") as full:
        run = command("evaluate", str(predictions), output=full.fileno())
    assert run.returncode == 2 and b"No space left on device" in run.stderr
    assert len(run.stderr.splitlines()) <= 3, run.stderr
    assert (predictions.parent / "metrics.json").is_file()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_an_encoding_lacks_is_printed_somehow(predictions, encoding):
    run = command("evaluate", str(predictions), PYTHONIOENCODING=encoding)
    assert run.returncode == 0, run.stderr
    shown = run.stdout.decode(encoding)
    assert ("é" in shown) == (encoding != "ascii") and ("\\xe9" in shown) == (encoding == "ascii")
    compared = command("compare", f"é={predictions}", PYTHONIOENCODING=encoding)
    assert compared.returncode == 0, compared.stderr


def test_a_name_that_is_no_text_can_be_said(tmp_path):
    name = os.fsdecode(bytes(tmp_path) + b"/\xff.jsonl")
    run = command("evaluate", name, PYTHONIOENCODING="utf-8")
    assert run.returncode == 2 and b"\\udcff.jsonl: no such file" in run.stderr
    assert len(run.stderr.splitlines()) == 1
