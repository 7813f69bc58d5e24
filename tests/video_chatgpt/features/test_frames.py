"""Which frames the tower sees, and their pixels."""

import hashlib

import pytest
import torch
from helpers.goldens import Golden, golden_root

from videomind.video.reader import BadVideoError
from videomind.video_chatgpt.features.frames import frame_indices, read_frames, squash

GOLDEN = Golden(golden_root("video_chatgpt"))


@pytest.mark.golden
def test_the_recorded_frame_numbers():
    table = GOLDEN.json("b_frame_index/table.json")
    found = [frame_indices(row["total"], row["wanted"]) for row in table]
    assert table and found == [row["indices"] for row in table]


@pytest.mark.golden
def test_the_recorded_pixels():
    videos = GOLDEN.json("c_features/videos.json")
    assert videos
    for video in videos:
        frames, problems = read_frames(GOLDEN.root / "c_features" / video["video"], size=224)
        assert frames.shape == (len(video["frame_indices"]), 224, 224, 3) and not problems
        pixels = frames.contiguous().numpy().tobytes()
        assert hashlib.sha256(pixels).hexdigest() == video["frames224_sha256"], video["video"]


@pytest.mark.golden
def test_the_recorded_broken_video_is_refused():
    with pytest.raises(BadVideoError, match=r"broken\.mp4"):
        read_frames(GOLDEN.root / "c_features/videos/broken.mp4", size=224)


@pytest.mark.parametrize(("total", "wanted"), [(0, 1), (5, 0)])
def test_no_frames_are_an_error(total, wanted):
    with pytest.raises(ValueError, match="both must be at least 1"):
        frame_indices(total, wanted)


def test_squashing_ignores_the_aspect_and_keeps_what_fits():
    frame = torch.arange(2 * 4 * 3, dtype=torch.uint8).view(2, 4, 3)
    assert torch.equal(squash(frame, 4), frame.repeat_interleave(2, dim=0))
    square = frame[:, :2]
    assert squash(square, 2) is square
