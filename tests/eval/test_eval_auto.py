"""eval_auto as a user runs it: chain and metrics by one command, and kills at any moment."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from helpers.ranks import start_ranks
from helpers.runs import REPO, SMALL, arguments, environment

from videomind.train.train import main as train

KILLS = 10


@pytest.fixture(scope="module")
def agent(workshop, tmp_path_factory) -> Path:
    """A grounder that is also asked to answer, untrained."""
    out = tmp_path_factory.mktemp("agent")
    assert train(arguments(workshop, out, "--num_train_epochs", "0")) == 0
    return out


@pytest.fixture(scope="module")
def questions(workshop, tmp_path_factory) -> Path:
    """A dozen questions with options and moments about the workshop's videos."""
    videos = sorted((workshop / "data/charades_sta/videos_3fps_480_noaudio").glob("*.mp4"))
    rows = [
        {"video": str(videos[i % len(videos)]), "duration": 20, "question": f"what is number {i}"}
        | {"options": ["red", "blue"], "answer": "red", "span": [[i % 9, i % 9 + 4]], "task": "ab"[i % 2]}
        for i in range(12)
    ]
    path = tmp_path_factory.mktemp("questions") / "qa.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(questions, *extra: str) -> list[str]:
    script = str(REPO / "scripts/evaluation/eval_auto_2b.sh")
    return ["bash", script, str(questions), *extra, *SMALL[:4], "--max_new_tokens", "3"]


def variables(agent, out, **extra: str) -> dict[str, str]:
    port = str(21000 + os.getpid() % 20000)
    return environment(MODEL=str(agent), ROLES="gnd", OUT=str(out), MASTER_PORT=port, **extra)


def test_one_command_predicts_and_scores(agent, questions, tmp_path):
    run = subprocess.run(command(questions), env=variables(agent, tmp_path), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    for words in ("Grounding (IoU)", "Grounding (IoP)", "QA:", "| a ", "| b "):
        assert words in run.stdout
    assert (tmp_path / "metrics.log").is_file() and (tmp_path / "metrics.json").is_file()
    assert len((tmp_path / "output.jsonl").read_text().splitlines()) == 12


@pytest.mark.slow
def test_too_many_failures_are_scored_and_end_with_a_code_of_their_own(agent, questions, tmp_path):
    rows = [json.loads(line) for line in questions.read_text().splitlines()[:4]]
    rows[1]["video"] = str(tmp_path / "missing.mp4")
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    env = variables(agent, tmp_path / "out")
    for extra, code in (((), 3), (("--max_bad_share", "0.25"), 0)):
        run = subprocess.run(command(tmp_path / "qa.jsonl", *extra), env=env, capture_output=True, text=True)
        assert run.returncode == code, run.stderr[-3000:]
        assert ("1 of 4 samples failed, more than --max_bad_share 0.1" in run.stderr) == (code == 3)
        assert "QA:" in run.stdout
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (metrics["records"], metrics["failed"], metrics["dropped"]) == (4, 1, {})


@pytest.mark.slow
def test_qvhighlights_is_submitted_and_scored_officially(agent, workshop, tmp_path):
    script = str(REPO / "scripts/evaluation/eval_qvhighlights.sh")
    run = subprocess.run(
        ["bash", script, str(agent), str(tmp_path), *SMALL[:4], "--max_new_tokens", "3"],
        env=environment(DATA_ROOT=str(workshop / "data")),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "MR-full-R1@0.5: " in run.stdout
    assert "MR-full-mAP: " in (tmp_path / "valid/metrics.log").read_text()
    for split, name in (("valid", "val"), ("test", "test")):
        rows = [json.loads(line) for line in (tmp_path / split / "output.jsonl").read_text().splitlines()]
        lines = (tmp_path / split / f"hl_{name}_submission.jsonl").read_text().splitlines()
        assert [json.loads(line)["qid"] for line in lines] == [row["qid"] for row in rows] != []


def test_usage_and_errors(agent, questions, tmp_path):
    script = str(REPO / "scripts/evaluation/eval_auto.sh")
    assert subprocess.run(["bash", script, "2b"], capture_output=True).returncode == 2
    wrong = subprocess.run(
        command("charades"), env=variables(agent, tmp_path), capture_output=True, text=True
    )
    assert wrong.returncode == 2 and "Did you mean 'charades_sta'" in wrong.stderr


def left_behind(out: Path) -> list[psutil.Process]:
    """Processes of a run that go on after their launcher was killed; they get a moment to notice."""
    _, alive = psutil.wait_procs([p for p in psutil.process_iter() if works_on(p, out)], timeout=20)
    return alive


def works_on(process: psutil.Process, out: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and str(out) in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def num_done(out: Path) -> int:
    """How many samples the processes of a run have written."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("parts/*.jsonl"))


def kill_by_progress(processes: list, out: Path, *, at: int, later_s: float) -> None:
    """Kill processes one right after the other, some time after so many samples were done."""
    while num_done(out) < at and any(process.is_alive() for process in processes):
        time.sleep(0.002)
    time.sleep(later_s)
    for process in processes:
        process.kill()
        process.join()


@pytest.mark.slow
def test_ten_kills_change_nothing(agent, questions, tmp_path):
    """SIGKILL at any sample, of processes and of the whole command; the last run goes on to its end."""
    whole, cut, rows = tmp_path / "whole", tmp_path / "cut", tmp_path / "qa.jsonl"
    rows.write_text(questions.read_text() * 5)
    start = time.monotonic()
    two = {"NPROC_PER_NODE": "2"}
    subprocess.run(command(rows), env=variables(agent, whole, **two), check=True, capture_output=True)
    length = time.monotonic() - start
    rng = random.Random(0)
    argv = ["--dataset", str(rows), "--data_root", "data", "--model_gnd_path", str(agent), *SMALL[:4]]
    argv += ["--max_new_tokens", "3", "--pred_path", str(cut)]
    for i in range(KILLS - 2):
        before = num_done(cut)
        processes = start_ranks(tmp_path / f"{i}", [argv] * 2, main="videomind.agent.infer")
        kill_by_progress(processes, cut, at=before + 1, later_s=rng.uniform(0, 0.05))
        assert before < num_done(cut) < 60 and not (cut / "output.jsonl").exists()
    for _ in range(2):
        run = subprocess.Popen(
            command(rows),
            env=variables(agent, cut, **two),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            run.wait(rng.uniform(0.3, 1.0) * length)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            assert not left_behind(cut)
    subprocess.run(command(rows), env=variables(agent, cut, **two), check=True, capture_output=True)
    assert (cut / "output.jsonl").read_bytes() == (whole / "output.jsonl").read_bytes()
    indices = [
        json.loads(line)["index"]
        for part in (cut / "parts").glob("*.jsonl")
        for line in part.read_text().splitlines()
        if line.endswith("}}")
    ]
    assert sorted(indices) == list(range(60))  # nothing was done twice, nothing lost
