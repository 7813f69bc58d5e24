"""Inference as a user runs it: a rerun goes on, processes share the work, broken videos are recorded.

Covers `agent/options.py`, `agent/predicting.py` and `runs/failures.py`.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.runs import REPO, SMALL, arguments, environment
from PIL import Image
from safetensors.torch import load_file, save_file

from videomind.agent import pipeline, predicting
from videomind.agent.agent import VideoMind
from videomind.agent.infer import main, runs_of
from videomind.agent.predicting import warn_of_missing_subtitles
from videomind.dataset.schema import Annotation
from videomind.eval.evaluate import main as evaluate
from videomind.train.train import main as train

BUDGET = SMALL[:4]


@pytest.fixture(scope="module")
def grounder(workshop, tmp_path_factory) -> Path:
    """An untrained role checkpoint: training of no epochs."""
    out = tmp_path_factory.mktemp("grounder")
    assert train(arguments(workshop, out, "--num_train_epochs", "0")) == 0
    return out


def infer_argv(workshop, grounder, out, *extra: str) -> list[str]:
    return [
        *(
            "--dataset",
            "qvhighlights",
            "--data_root",
            str(workshop / "data"),
            "--model_gnd_path",
            str(grounder),
        ),
        *("--pred_path", str(out), "--max_new_tokens", "3", *BUDGET, *extra),
    ]


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "output.jsonl").read_text().splitlines()]


def test_a_rerun_does_only_what_is_missing(workshop, grounder, tmp_path):
    argv = infer_argv(workshop, grounder, tmp_path)
    assert main(argv) == 0
    whole = (tmp_path / "output.jsonl").read_bytes()
    part = tmp_path / "parts/part_0.jsonl"
    rows = part.read_text().splitlines(keepends=True)
    assert len(rows) == len(lines(tmp_path)) > 2
    # As a kill in the middle of a write leaves it: one row whole, the next cut short.
    part.write_text(rows[0] + rows[1][: len(rows[1]) // 2])
    (tmp_path / "output.jsonl").unlink()
    assert main(argv) == 0
    assert (tmp_path / "output.jsonl").read_bytes() == whole
    again = part.read_text().splitlines()
    assert again[0] + "\n" == rows[0] and len(again) == len(rows) + 1  # the cut line stays, unused


@pytest.mark.slow
def test_two_processes_write_what_one_writes(workshop, grounder, tmp_path):
    assert main(infer_argv(workshop, grounder, tmp_path / "one")) == 0
    run = subprocess.run(
        [
            "bash",
            str(REPO / "scripts/evaluation/infer.sh"),
            *infer_argv(workshop, grounder, tmp_path / "two"),
        ],
        env=environment(NPROC_PER_NODE="2", MASTER_PORT=str(21000 + os.getpid() % 20000)),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "two/output.jsonl").read_bytes() == (tmp_path / "one/output.jsonl").read_bytes()
    parts = sorted((tmp_path / "two/parts").glob("*.jsonl"))
    indices = [json.loads(line)["index"] for part in parts for line in part.read_text().splitlines()]
    assert sorted(indices) == list(range(len(lines(tmp_path / "one"))))


@pytest.fixture(scope="module")
def project(workshop, grounder, tmp_path_factory) -> Path:
    """A finished run beside its data and its checkpoint."""
    folder = tmp_path_factory.mktemp("projects") / "project"
    shutil.copytree(workshop / "data", folder / "data")
    shutil.copytree(grounder, folder / "grounder")
    assert main(project_argv(folder)) == 0
    return folder


def project_argv(folder: Path, *extra: str) -> list[str]:
    argv = [
        "--dataset",
        "charades_sta",
        "--data_root",
        str(folder / "data"),
        "--pred_path",
        str(folder / "out"),
    ]
    return [*argv, "--model_gnd_path", str(folder / "grounder"), "--max_new_tokens", "3", *BUDGET, *extra]


def retrain(folder: Path, file: str) -> None:
    """Other values of the same size, as another training leaves them."""
    path = folder / "grounder" / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def change_labels(folder: Path) -> None:
    path = next((folder / "data/charades_sta").glob("*test*.txt"))
    path.write_text(path.read_text().replace("##", "##Then ", 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda p: retrain(p, "pytorch_model.safetensors"),
            "model_gnd_path: pytorch_model.safetensors changed",
        ),
        (
            lambda p: retrain(p, "grounder/adapter_model.safetensors"),
            "model_gnd_path: grounder/adapter_model",
        ),
        (lambda p: retrain(p, "tokenizer.json"), "model_gnd_path: tokenizer.json changed"),
        (change_labels, "annotations changed"),
    ],
    ids=["head", "adapter", "tokenizer", "labels"],
)
def test_a_rerun_on_other_inputs_is_refused_with_the_reason(project, tmp_path, capfd, change, words):
    folder = Path(shutil.copytree(project, tmp_path / "project"))
    change(folder)
    before = (folder / "out/output.jsonl").read_bytes()
    assert main(project_argv(folder)) == 2
    assert f"holds results of other settings: {words}" in capfd.readouterr().err
    assert (folder / "out/output.jsonl").read_bytes() == before


def test_a_rerun_with_another_reader_or_data_root_is_refused(project, workshop, monkeypatch, capfd):
    assert main(project_argv(project, "--data_root", str(workshop / "data"))) == 2
    assert f"data_root was {project / 'data'}, is {workshop / 'data'}" in capfd.readouterr().err
    monkeypatch.setenv("VIDEOMIND_VIDEO_READER", "decord")
    assert main(project_argv(project)) == 2
    assert "video reader was 'pyav', is 'decord'" in capfd.readouterr().err


def test_results_that_moved_with_their_inputs_or_are_spelt_otherwise_are_gone_on_with(
    project, tmp_path, monkeypatch, caplog
):
    folder = Path(shutil.copytree(project, tmp_path / "moved"))
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    (folder / "grounder/notes.txt").write_text("what is not loaded may change")
    for spelling in (folder, Path("moved"), tmp_path / "link"):
        caplog.clear()
        assert main([*project_argv(spelling), "--model_gnd_path", f"{spelling}/grounder/"]) == 0
        assert any(re.search(r"(\d+) samples, \1 of them done", said) for said in caplog.messages)


def test_a_broken_video_is_recorded_with_its_reason(workshop, grounder, tmp_path):
    data = Path(shutil.copytree(workshop / "data", tmp_path / "data"))
    videos = sorted({row["video_path"] for row in valid_rows(data)})
    Path(videos[0]).write_bytes(b"")
    argv = [*infer_argv(workshop, grounder, tmp_path / "out"), "--data_root", str(data)]
    assert main(argv) == 3  # more than a tenth failed
    assert main([*argv, "--max_bad_share", "1"]) == 0
    for record in lines(tmp_path / "out"):
        assert ("error" in record) == (record["video_path"] == videos[0])
        assert "an empty file" in record.get("error", "an empty file")
        assert record["grounder_success"] is False
    assert evaluate([str(tmp_path / "out")]) == 3
    failed = sum("error" in record for record in lines(tmp_path / "out"))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (metrics["failed"], metrics["records"]) == (failed, len(lines(tmp_path / "out")))
    submitted = (tmp_path / "out/hl_val_submission.jsonl").read_text().splitlines()
    assert len(submitted) == len(lines(tmp_path / "out"))  # the server wants every query


def test_an_error_that_nobody_foresaw_is_recorded_with_its_class_and_place(
    workshop, grounder, tmp_path, monkeypatch
):
    read, videos = pipeline.read_excerpts, set()

    def fails(excerpts):
        videos.add(excerpts[0].path)
        if excerpts[0].path == min(videos):
            raise Image.DecompressionBombError("too many pixels")
        return read(excerpts)

    monkeypatch.setattr(pipeline, "read_excerpts", fails)
    assert main(infer_argv(workshop, grounder, tmp_path)) == 3  # more failed than --max_bad_share
    errors = [record["error"] for record in lines(tmp_path) if "error" in record]
    assert 0 < len(errors) < len(lines(tmp_path))
    assert all(re.fullmatch(r"PIL.Image.DecompressionBombError at videomind/agent/pipeline.py:\d+ "
                            r"\(prepare_all\): too many pixels", error) for error in errors)  # fmt: skip


def test_numbers_that_are_not_finite_are_no_answers(workshop, grounder, tmp_path, monkeypatch, capfd):
    """One infinite weight gave `!!!!!!!!` and NaN as a normal record."""
    base = Path(shutil.copytree(workshop / "base", tmp_path / "base"))
    for shard in base.glob("*.safetensors"):
        tensors = load_file(shard)
        for name in tensors:
            if name.endswith("model.norm.weight"):
                tensors[name][0] = float("inf")
        save_file(tensors, shard, metadata={"format": "pt"})
    argv = infer_argv(workshop, grounder, tmp_path / "out", "--base_model_path", str(base))
    assert main(argv) == 3
    for record in lines(tmp_path / "out"):
        assert "not finite numbers" in record["error"] and "pred" not in record
    monkeypatch.setattr(predicting, "NOT_FINITE_IN_A_ROW", 3)
    assert main([*argv, "--pred_path", str(tmp_path / "again")]) == 2
    assert "3 samples in a row failed" in capfd.readouterr().err
    assert len((tmp_path / "again/parts/part_0.jsonl").read_text().splitlines()) == 3


def test_one_model_on_all_devices_is_one_process(workshop, grounder, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="but there are 2 processes. Start one"):
        VideoMind.from_pretrained(roles={"grounder": grounder}, device="all")


def test_failures_are_done_again_when_asked(workshop, grounder, tmp_path):
    data = Path(shutil.copytree(workshop / "data", tmp_path / "data"))
    video = Path(valid_rows(data)[0]["video_path"])
    argv = [*infer_argv(workshop, grounder, tmp_path / "out"), "--data_root", str(data)]
    video.rename(tmp_path / "late.mp4")
    assert main(argv) == 3
    (tmp_path / "late.mp4").rename(video)
    before, part = lines(tmp_path / "out"), tmp_path / "out/parts/part_0.jsonl"
    assert main(argv) == 3
    assert lines(tmp_path / "out") == before and any("error" in record for record in before)
    assert main([*argv, "--retry_failed"]) == 0
    after = lines(tmp_path / "out")
    assert not any("error" in record for record in after)
    failed = sum("error" in record for record in before)
    assert len(part.read_text().splitlines()) == len(before) + failed
    assert [old == new for old, new in zip(before, after, strict=True)].count(False) == failed


def test_data_that_go_away_end_the_run_and_are_booked_on_no_sample(project, tmp_path, monkeypatch, capfd):
    whole = (project / "out/output.jsonl").read_bytes()
    folder = Path(shutil.copytree(project, tmp_path / "project"))
    shutil.rmtree(folder / "out")
    prepare_all, prepared = predicting.prepare_all, []

    def prepare_two(*args, **settings):
        if len(prepared) == 2:
            (folder / "data").rename(tmp_path / "gone")
        prepared.append(prepare_all(*args, **settings))
        return prepared[-1]

    monkeypatch.setattr(predicting, "prepare_all", prepare_two)
    assert main(project_argv(folder, "--num_threads", "1")) == 2
    assert re.search(rf"ERROR The folder {folder}/data/\S+ has gone", capfd.readouterr().err)
    part = (folder / "out/parts/part_0.jsonl").read_text()
    assert len(part.splitlines()) == 2 and "error" not in part
    (tmp_path / "gone").rename(folder / "data")
    monkeypatch.setattr(predicting, "prepare_all", prepare_all)
    assert main(project_argv(folder)) == 0
    assert re.sub(str(folder), str(project), (folder / "out/output.jsonl").read_text()) == whole.decode()


@pytest.mark.parametrize("place", ["out", "out/parts/part_0.jsonl", "out/infer.log", "out/settings.json"])
def test_output_that_cannot_be_written_is_one_line_with_its_place(project, tmp_path, capfd, place):
    """A file where a folder is to be, or a folder for a file."""
    taken = tmp_path / place
    taken.parent.mkdir(parents=True, exist_ok=True)
    taken.write_text("") if place == "out" else taken.mkdir()
    assert main(project_argv(project, "--pred_path", str(tmp_path / "out"))) == 2
    said = capfd.readouterr().err
    (line,) = [line for line in said.splitlines() if "ERROR" in line]
    assert str(taken) in line and "Traceback" not in said


def valid_rows(data: Path) -> list[dict]:
    from videomind.dataset.base import get_source

    return [anno.to_dict() for anno in get_source("qvhighlights", data).load("valid").annotations]


def test_one_video(workshop, grounder, tmp_path):
    video = next((workshop / "data/charades_sta").rglob("*.mp4"))
    argv = ["--video", str(video), "--query", "  A red square. ", "--model_gnd_path", str(grounder)]
    assert main([*argv, "--pred_path", str(tmp_path), "--max_new_tokens", "3", *BUDGET]) == 0
    (record,) = lines(tmp_path)
    assert record["query"] == "A red square" and record["pred"] == [[0.0, record["duration"]]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--dataset", "qvhighlight"], "Unknown data set 'qvhighlight'"),
        (
            ["--split", "vaild"],
            "qvhighlights has no split 'vaild'. Allowed: test, train, valid. Did you mean 'valid'",
        ),
        (["--data_root", "nowhere"], "No annotation file nowhere/qvhighlights/highlight_val_release.jsonl"),
        (["--model_gnd_path", "model_zoo/none"], "No checkpoint of the grounder in"),
        (["--video", "x.mp4"], "Give either --dataset or --video"),
        (
            ["--max_frames", "2049"],
            "--max_frames 2049 is too much for the grounding head",
        ),
        (["--auto_planning"], "--auto_planning needs a planner: give --model_pla_path"),
        (["--auto_rephrasing"], "--auto_rephrasing needs a planner: give --model_pla_path"),
        (["--verify_query"], "--verify_query needs a verifier: give --model_ver_path"),
    ],
)
def test_errors_are_one_line(workshop, grounder, tmp_path, capfd, change, words):
    assert main([*infer_argv(workshop, grounder, tmp_path), *change]) == 2
    screen = capfd.readouterr().err
    assert words in screen and "Traceback" not in screen


def subtitled(count: int, *existing: str) -> list[Annotation]:
    paths = [*existing, *[None, "gone.srt"] * count][:count]
    return [Annotation(source="x", video_path="v.mp4", subtitle_path=path) for path in paths]


@pytest.mark.parametrize(
    ("count", "num_existing", "words"),
    [
        (1, 0, "1 of 1 samples and has no effect"),
        (5, 0, "5 of 5 samples and has no effect"),
        (5, 2, "3 of 5 samples"),
        (3, 3, None),
    ],
)
def test_samples_without_subtitles_are_counted(tmp_path, caplog, count, num_existing, words):
    existing = [tmp_path / f"{i}.srt" for i in range(num_existing)]
    for path in existing:
        path.touch()
    warn_of_missing_subtitles(subtitled(count, *map(str, existing)))
    wanted = [] if words is None else [f"--use_subtitle finds no subtitle file for {words}"]
    assert caplog.messages == wanted


def test_a_run_counts_what_lacks_subtitles(workshop, grounder, tmp_path, capfd):
    assert main(infer_argv(workshop, grounder, tmp_path, "--use_subtitle")) == 0
    count = len(lines(tmp_path))
    assert f"no subtitle file for {count} of {count} samples and has no effect" in capfd.readouterr().err


def test_results_of_other_settings_are_not_mixed(workshop, grounder, tmp_path, capfd):
    assert main(infer_argv(workshop, grounder, tmp_path)) == 0
    assert main(infer_argv(workshop, grounder, tmp_path, "--max_frames", "8")) == 2
    assert "holds results of other settings: max_frames was None, is 8" in capfd.readouterr().err


def test_a_missing_video_file_is_one_line(workshop, grounder, tmp_path, capfd):
    argv = ["--video", "none.mp4", "--query", "x", "--model_gnd_path", str(grounder)]
    assert main([*argv, "--pred_path", str(tmp_path), *BUDGET]) == 2
    assert "none.mp4: no such file" in capfd.readouterr().err


def test_runs_of_one_command_line_are_done_in_turn_until_one_fails(tmp_path, capfd):
    assert runs_of(["--a", "1", "+", "--b", "+"]) == [["--a", "1"], ["--b"], []]
    wrong = [["--dataset", "x", "--pred_path", str(tmp_path / str(n)), "--chunk", "2"] for n in (1, 2)]
    assert main([*wrong[0], "--index", "7", "+", *wrong[1], "--index", "8"]) == 2
    said = capfd.readouterr().err
    assert "--index 7 is not one of" in said and "--index 8" not in said
