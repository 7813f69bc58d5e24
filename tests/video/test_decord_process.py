"""decord that aborts, is killed or hangs: the video is refused by name, and what reads it goes on."""

import os
import signal
import time

import pytest
from helpers.videos import number_of, write_video

from videomind.video import decord_process
from videomind.video.decord_process import DecordProcess
from videomind.video.reader import BadVideoError
from videomind.video.readers import DecordReader, open_reader

pytest.importorskip("decord")


@pytest.fixture
def video(tmp_path) -> str:
    return str(write_video(tmp_path / "v.mp4", 24))


@pytest.mark.parametrize("fate", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL, signal.SIGSTOP])
def test_a_decoder_that_ends_or_hangs_ends_the_video_alone(video, monkeypatch, fate):
    with open_reader(video, "decord") as reader, monkeypatch.context() as patch:
        patch.setattr(decord_process, "PATIENCE_S", 0.5)
        os.kill(reader._process._process.pid, fate)
        said = "decord hangs" if fate == signal.SIGSTOP else f"decord ended its process (-{fate:d})"
        with pytest.raises(BadVideoError, match=r"v\.mp4: .*near frames 0 to 3 \(tried decord") as raised:
            reader.get_frames([0, 3])
        assert said in str(raised.value.__cause__)
    with open_reader(video, "decord") as reader:
        assert [number_of(frame) for frame in reader.get_frames([0, 3])[0]] == [0, 3]


def test_nothing_is_left_of_it(video):
    before = len(os.listdir("/proc/self/fd"))
    reader = DecordReader(video)
    process = reader._process._process
    reader.close()
    assert process.returncode is not None and len(os.listdir("/proc/self/fd")) == before
    alone = DecordProcess(video, 1)
    process = alone._process
    alone._answers.close()  # as when what asked is killed
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.returncode == 0


def test_a_file_that_it_cannot_open_is_refused(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(BadVideoError, match=r"v\.mp4: cannot be opened \(tried decord\)"):
        open_reader(tmp_path / "v.mp4", "decord")
