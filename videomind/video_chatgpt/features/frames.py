"""From a video file to the frames the vision tower sees: which ones, and at what size."""

import os

from torch import Tensor
from torch.nn import functional as F

from videomind.video.readers import open_reader

MAX_FRAMES = 100  # of a video; also the temporal rows of its features


def frame_indices(total: int, count: int) -> list[int]:
    """Choose the frames in the middle of `count` equal parts of a video.

    Of a short video not simply all frames are taken: one repeats and the last is left out. Published
    projectors were trained on that.

    Args:
        total: frames of the video.
        count: how many to take; of more than there are some repeat.

    Raises:
        ValueError: less than one frame.
    """
    if min(total, count) < 1:
        raise ValueError(f"Cannot take {count} of {total} frames: both must be at least 1")
    part = (total - 1) / count
    ends = [round(part * i) for i in range(count + 1)]  # halves go to the even number
    return [(start + end) // 2 for start, end in zip(ends, ends[1:], strict=False)]


def squash(frame: Tensor, size: int) -> Tensor:
    """Bring a frame (H, W, 3), uint8, to (size, size, 3) by the nearest pixel, whatever its aspect."""
    if frame.shape[:2] == (size, size):
        return frame
    return F.interpolate(frame.permute(2, 0, 1)[None], size=(size, size))[0].permute(1, 2, 0)


def read_frames(path: str | os.PathLike, *, size: int, reader: str | None = None) -> tuple[Tensor, list[str]]:
    """Decode up to 100 frames of a video.

    Args:
        path: the video file.
        size: S, pixels of a side of the tower's square input.
        reader: name of one; None is the first that is installed.

    Returns:
        (T, S, S, 3) uint8, RGB, and one line for each frame that was replaced or concealed.

    Raises:
        BadVideoError: the video is unusable.
        ValueError: the reader is.
    """
    with open_reader(path, reader) as video:
        clock = video.clock
        positions = frame_indices(clock.total, min(clock.total, MAX_FRAMES))
        indices = [clock.frame_at(position) for position in positions]
        return video.get_frames(indices, transform=lambda frame: squash(frame, size))
