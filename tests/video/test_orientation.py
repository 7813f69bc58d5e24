"""Pictures turned and mirrored as ffmpeg's player shows them."""

import av
import numpy as np
import pytest

from videomind.video.readers import open_reader

ONE = 1 << 16
# What ffmpeg 5.1 makes of each matrix (a, b, c, d), recorded with `ffmpeg -i FILE -f rawvideo`.
ORIENTATIONS = {
    "as it is": ((ONE, 0, 0, ONE), lambda p: p),
    "turned right": ((0, ONE, -ONE, 0), lambda p: np.rot90(p, -1)),
    "turned by half": ((-ONE, 0, 0, -ONE), lambda p: np.rot90(p, 2)),
    "turned left": ((0, -ONE, ONE, 0), np.rot90),
    "mirrored": ((-ONE, 0, 0, ONE), lambda p: p[:, ::-1]),
    "upside down": ((ONE, 0, 0, -ONE), lambda p: p[::-1]),
    "transposed": ((0, ONE, ONE, 0), lambda p: p.transpose(1, 0, 2)),
    "transposed across": ((0, -ONE, -ONE, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
    "no angle": ((0, 0, 0, 0), lambda p: p),
    "half an angle": ((ONE, 0, 0, 0), lambda p: p),
    "twice as large": ((2 * ONE, 0, 0, 2 * ONE), lambda p: p),
}


def write_turned(path, matrix) -> np.ndarray:
    """A lossless video of four equal pictures without any symmetry; returns the picture."""
    a, b, c, d = matrix
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32], picture[:16, 32:], picture[16:, :32] = 255, (255, 0, 0), (0, 255, 0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 64, "rgb24"
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return picture


@pytest.mark.skipif(
    not hasattr(av.video.stream.VideoStream, "set_display_matrix"), reason="this PyAV writes no matrix"
)
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_orientations_are_as_ffmpeg_shows_them(tmp_path, name):
    matrix, shown = ORIENTATIONS[name]
    picture = write_turned(tmp_path / "v.mp4", matrix)
    with open_reader(tmp_path / "v.mp4", "pyav") as reader:
        frames, problems = reader.get_frames([2])
    np.testing.assert_array_equal(frames[0], shown(picture))
    assert problems == []


@pytest.mark.skipif(
    not hasattr(av.video.stream.VideoStream, "set_display_matrix"), reason="this PyAV writes no matrix"
)
def test_an_odd_angle_is_read_unturned_and_said(tmp_path):
    picture = write_turned(tmp_path / "v.mp4", (46341, 46341, -46341, 46341))
    with open_reader(tmp_path / "v.mp4", "pyav") as reader:
        frames, problems = reader.get_frames([2])
    np.testing.assert_array_equal(frames[0], picture)
    assert len(problems) == 1 and "turned by -45 degrees" in problems[0]
