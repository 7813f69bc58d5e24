"""Processes of one run agree on where they go on, hold the same parameters, and count samples together."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.ranks import run_ranks, try_ranks
from helpers.runs import arguments, logged, losses

from videomind.train.checkpoints import complete_checkpoints

ONE_EACH = ("--per_device_train_batch_size", "1", "--save_steps", "2")
TWO = (*ONE_EACH, "--max_steps", "2")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize(
    ("differs", "words"),
    [
        ("nothing", None),
        ("frozen", None),
        ("bias", "1 trainable parameters of process 1"),
        ("step", "is at step 1,"),
    ],
)
def test_processes_that_differ_are_refused(tmp_path, differs, words, dtype):
    codes, screen = try_ranks(tmp_path, [[differs, dtype]] * 2, main="helpers.differing")
    assert codes == [0 if words is None else 2] * 2, screen
    assert words is None or screen.count(words) == 2


@pytest.mark.slow
def test_the_first_process_decides_where_a_run_goes_on(workshop, tmp_path):
    """A second node with a folder of its own: its process can't see what it must load."""
    out, other = tmp_path / "out", tmp_path / "other"
    run_ranks(tmp_path / "1", [arguments(workshop, out, *TWO)] * 2)
    assert json.loads((out / "checkpoint-2/samples.json").read_text()) == {"seen": 4, "bad": 0, "damaged": 0}
    # A finished run is finished for all.
    run_ranks(tmp_path / "2", [arguments(workshop, folder, *TWO) for folder in (out, other)])
    longer = (*ONE_EACH, "--max_steps", "4")
    argvs = [arguments(workshop, folder, *longer) for folder in (out, other)]
    codes, screen = try_ranks(tmp_path / "3", argvs)
    assert codes == [2, 2], screen
    assert (
        "process 1 on" in screen
        and "cannot see it: --output_dir must be a folder that all nodes share" in screen
    )
    assert "Traceback" not in screen
    run_ranks(tmp_path / "4", [arguments(workshop, out, *longer)] * 2)
    assert sorted(losses(out)) == [1, 2, 3, 4]


@pytest.mark.slow
def test_bad_samples_are_counted_over_processes_and_resumes(workshop, tmp_path):
    data = Path(shutil.copytree(workshop / "data", tmp_path / "data"))
    for video in sorted((data / "charades_sta/videos_3fps_480_noaudio").glob("*.mp4"))[:4]:
        video.write_bytes(b"not a video")
    out = tmp_path / "out"
    for steps in ("2", "4"):
        extra = ("--max_steps", steps, "--save_steps", "2", "--max_bad_share", "1", "--data_root", str(data))
        extra = (*extra, "--datasets", "charades_sta", "--per_device_train_batch_size", "4")
        run_ranks(tmp_path / steps, [arguments(workshop, out, *extra)] * 2)
        bad = sum(len(path.read_text().splitlines()) for path in out.glob("rank*_bad_samples.jsonl"))
        assert len(list(out.glob("rank*_bad_samples.jsonl"))) == 2
        assert logged(out)[-1]["bad_samples"] == bad > 0
        counts = json.loads((complete_checkpoints(out)[-1] / "samples.json").read_text())
        assert counts == {"seen": 8 * int(steps), "bad": bad, "damaged": 0}
