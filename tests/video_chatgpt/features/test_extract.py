"""Feature extraction as a user runs it: what fails is reported, reruns go on, processes share the work.

Covers `video_chatgpt/features/extract.py` and `video_chatgpt/features/extracting.py`.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers.kills import run_killed
from helpers.machine import closed
from helpers.runs import REPO, environment
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from videomind.video_chatgpt.features import extracting
from videomind.video_chatgpt.features.extract import TOWERS, build_parser, choose_tower, main
from videomind.video_chatgpt.features.extracting import assign_outputs, find_videos, output_names
from videomind.video_chatgpt.features.store import read_features, write_features

SHAPE = (104, 8)  # two by two patches


def write_video(path: Path, *, frames: int = 5, seed: int = 0) -> None:
    """A few frames of noise."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.thread_count = 1
        for _ in range(frames):
            picture = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tower")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=28, patch_size=14)).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture
def videos(tmp_path) -> Path:
    """Forty videos, one of them empty and one no video at all."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(38):
        write_video(folder / f"v_{i}.mp4", seed=i)
    (folder / "v_empty.mp4").touch()
    (folder / "v_text.avi").write_text("no video")
    return folder


def argv(videos, out, tower, *extra):
    return ["--video_dir_path", str(videos), "--clip_feat_path", str(out), "--vision_tower", str(tower),
            "--num_workers", "2", *extra]  # fmt: skip


def contents(folder: Path, pattern: str = "*.pkl") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob(pattern)}


def report(out: Path) -> dict[str, str]:
    rows = json.loads((out / "failed_videos.json").read_text())
    return {Path(row["video"]).name: row["reason"] for row in rows}


def test_broken_videos_are_reported_and_a_rerun_does_nothing(videos, tower, tmp_path, capfd, monkeypatch):
    """D611: the reason of a failure is kept, and the run goes on."""
    out = tmp_path / "features"
    assert main(argv(videos, out, tower)) == 0
    first = contents(out)
    assert sorted(first) == sorted(f"v_{i}.pkl" for i in range(38))
    assert all(read_features(out / name).shape == SHAPE for name in first)
    assert report(out) == {
        "v_empty.mp4": "an empty file",
        "v_text.avi": "not a video that can be opened (Invalid data found when processing input; tried pyav)",
    }
    screen = capfd.readouterr()
    assert sorted(screen.out.splitlines()) == [
        f"Can't process {videos}/{n}" for n in ("v_empty.mp4", "v_text.avi")
    ]
    assert "Can't process" in screen.err and "an empty file" in screen.err

    times = {path: path.stat().st_mtime_ns for path in out.glob("*.pkl")}
    monkeypatch.setattr(extracting.ClipTower, "from_pretrained", None)  # not needed when nothing decodes
    assert main(argv(videos, out, tower)) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.pkl")} == times
    assert len(report(out)) == 2
    screen = capfd.readouterr().err
    assert "38 of 40 videos have their features" in screen and "nothing to do" in screen


def test_a_mended_video_leaves_the_report(videos, tower, tmp_path):
    out = tmp_path / "features"
    for path in videos.glob("v_[1-9]*"):
        path.unlink()
    assert main(argv(videos, out, tower)) == 0
    write_video(videos / "v_empty.mp4")
    assert main(argv(videos, out, tower)) == 0
    assert sorted(contents(out)) == ["v_0.pkl", "v_empty.pkl"] and list(report(out)) == ["v_text.avi"]
    (videos / "v_text.avi").unlink()
    assert main(argv(videos, out, tower)) == 0
    assert report(out) == {}


def test_features_that_cannot_be_written_are_no_videos_fault(tower, tmp_path, capfd):
    videos, out = tmp_path / "videos", tmp_path / "features"
    videos.mkdir(), out.mkdir()
    write_video(videos / "v_1.mp4")
    with closed(out):
        assert main(argv(videos, out, tower)) == 2
    said = capfd.readouterr().err
    assert f"ERROR {out / 'v_1.pkl'}: Permission denied" in said and "Can't process" not in said
    assert not list(out.iterdir())


def test_many_videos_are_listed_in_time_that_grows_with_their_number(tmp_path, monkeypatch):
    """Every entry is looked at once, and compared with no other one."""
    for i in range(3000):
        (tmp_path / f"v_{i}.{'MP4' if i % 3 else 'txt'}").touch()
    (tmp_path / "folder.mp4").mkdir()
    comparisons = []

    def equal(one: Path, other: object) -> bool:
        comparisons.append(one)
        return str(one) == str(other)

    monkeypatch.setattr(Path, "__eq__", equal)
    monkeypatch.setattr(Path, "__hash__", lambda path: comparisons.append(path) or hash(str(path)))
    videos = find_videos(tmp_path)
    jobs, clashes = assign_outputs(videos, tmp_path / "out", ".pkl")
    assert len(jobs) == len(videos) == 2000 and not clashes
    assert len(comparisons) < 20 * len(videos)


@pytest.mark.slow
def test_a_killed_run_keeps_what_it_made(videos, tower, tmp_path):
    """D611: every file is written at once, and only whole."""
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert main(argv(videos, whole, tower)) == 0
    script = [sys.executable, str(REPO / "scripts/save_spatio_temporal_clip_features.py")]
    run_killed([*script, *argv(videos, out, tower)], out / "*.pkl")
    kept = contents(out)
    assert len(kept) == 1 and kept.items() <= contents(whole).items()
    assert main(argv(videos, out, tower)) == 0
    assert contents(out) == contents(whole)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(videos, tower, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(argv(videos, one, tower)) == 0
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
        *("--master_port", str(21000 + os.getpid() % 20000)),
        str(REPO / "scripts/save_spatio_temporal_clip_features.py"),
    ]
    run = subprocess.run(
        [*command, *argv(videos, two, tower)], env=environment(), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert contents(two) == contents(one)
    assert report(two) == report(one)


def test_names_count_up_to_the_first_dot_where_that_tells_videos_apart():
    """D611: a.x.mp4 and a.y.mp4 have features of their own."""
    names = ("a.x.mp4", "a.y.mp4", "odd.size.mp4", "b.mp4", "b.part.mp4")
    assert list(output_names([Path(name) for name in names]).values()) == ["a.x", "a.y", "odd", "b", "b.part"]


def test_videos_of_one_name_are_not_lost_in_silence(tower, tmp_path, capfd):
    videos, out = tmp_path / "videos", tmp_path / "features"
    videos.mkdir()
    for seed, name in enumerate(("a.x.mp4", "a.y.mp4", "b.mp4", "b.mkv", "c.mp4")):
        write_video(videos / name, seed=seed)
    (videos / "c.srt").write_text("subtitles")
    assert main(argv(videos, out, tower)) == 0
    found = contents(out)
    assert sorted(found) == ["a.x.pkl", "a.y.pkl", "c.pkl"] and len(set(found.values())) == 3
    assert report(out) == dict.fromkeys(("b.mkv", "b.mp4"), "2 videos would have their features in b.pkl")
    screen = capfd.readouterr().err
    assert "share their name up to the first dot and keep all of it: a.x.mp4, a.y.mp4" in screen
    assert "1 entries are no video files: c.srt" in screen


def test_files_that_cannot_be_read_are_made_anew(tower, tmp_path, capfd):
    videos, out = tmp_path / "videos", tmp_path / "features"
    videos.mkdir()
    write_video(videos / "v.mp4")
    assert main(argv(videos, out, tower)) == 0
    whole = (out / "v.pkl").read_bytes()
    (out / "v.pkl").write_bytes(whole[:100])
    assert main(argv(videos, out, tower)) == 0
    assert (out / "v.pkl").read_bytes() == whole
    assert "v.pkl is refused" in capfd.readouterr().err

    write_features(out / "v.pkl", np.ones((356, 1024), dtype=np.float16))
    assert main(argv(videos, out, tower)) == 2
    assert "holds features (356, 1024), this tower gives (104, 8)" in capfd.readouterr().err


def test_both_formats_hold_the_same_array(tower, tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "features"
    videos.mkdir()
    write_video(videos / "v.mp4")
    for form in ("pkl", "safetensors"):
        assert main(argv(videos, out, tower, "--format", form, "--infer_batch", "2")) == 0
    assert np.array_equal(read_features(out / "v.pkl"), read_features(out / "v.safetensors"))


def test_features_that_overflow_are_reported(tower, tmp_path, monkeypatch):
    videos, out = tmp_path / "videos", tmp_path / "features"
    videos.mkdir()
    write_video(videos / "v.mp4")
    monkeypatch.setattr(
        extracting.ClipTower, "features", lambda self, frames: np.full(SHAPE, 1e6, np.float32)
    )
    assert main(argv(videos, out, tower)) == 0
    assert "832 of 832 feature values are not finite" in report(out)["v.mp4"]
    assert not contents(out)


def test_decoding_overlaps_with_the_tower(tower, tmp_path, monkeypatch):
    """While the tower has a video, the next one is already being decoded: it waits for that."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(6):
        write_video(videos / f"v_{i}.mp4")

    decoding = threading.Semaphore(0)

    class Waiting:
        seen = 0

        def features(self, frames):
            self.seen += 1
            for _ in range(2 if self.seen == 1 else 1 if self.seen < 6 else 0):
                assert decoding.acquire(timeout=30), f"video {self.seen} alone"
            return np.zeros(SHAPE)

    def read(path, *, size):
        decoding.release()
        return torch.zeros(1), []

    monkeypatch.setattr(extracting, "read_frames", read)
    waiting = Waiting()
    monkeypatch.setattr(extracting.ClipTower, "from_pretrained", lambda *args, **_: waiting)
    assert main(argv(videos, tmp_path / "out", tower)) == 0


@pytest.mark.parametrize(
    ("flags", "tower"),
    [
        ([], TOWERS["1.1"]),
        (["--llava", "1.1"], "openai/clip-vit-large-patch14"),
        (["--llava", "1.5"], "openai/clip-vit-large-patch14-336"),
        (["--llava", "1.5", "--vision_tower", "mine"], "mine"),
    ],
)
def test_the_tower_is_chosen_by_name_then_by_version(flags, tower):
    args = build_parser().parse_args(["--video_dir_path", "v", "--clip_feat_path", "f", *flags])
    assert choose_tower(args) == tower and args.infer_batch == 32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--video_dir_path", "none"], "No folder of videos none"),
        (["--video_dir_path", "."], "holds no video"),
        (["--vision_tower", "/none"], "No vision tower '/none'"),
        (["--device", "toaster"], "Unknown device 'toaster'"),
        (["--device", "cuda:77"], "No device 'cuda:77'"),
        (["--infer_batch", "0"], "--infer_batch must be at least 1"),
    ],
)
def test_errors_are_one_line(change, words, tower, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/v.mp4")
    assert main([*argv(tmp_path / "videos", tmp_path / "out", tower), *change]) == 2
    screen = capfd.readouterr().err
    assert words in screen and "Traceback" not in screen
