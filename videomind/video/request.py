"""What is asked of a video: which part, how finely. Made from a sample, answered by the readers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from videomind.roles import VisualBudget

USE, SKIP = ON_DAMAGE = ("use", "skip")  # what becomes of a sample whose video has problems


class ImageList(list):
    """Paths of image files that are one video, with a rate: excerpts and budgets apply to it as to a video.

    A plain list has none: it is taken whole, one second per image, as published training took lists.

    Args:
        paths: of the images, in order.
        fps: images per second.

    Raises:
        ValueError: the rate is not above 0, or no number.
    """

    def __init__(self, paths: Iterable[str] = (), *, fps: float = 1.0):
        super().__init__(paths)
        if not 0 < fps < math.inf:
            raise ValueError(f"fps is {fps}, expected images per second above 0")
        self.fps = fps


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """What to decode: a video, a part of it, and how finely.

    Attributes:
        path: a video file, a .gif, or a list of image files (see `ImageList`).
        budget: bounds on frames and pixels.
        start_s: None is the video's start.
        end_s: None is the video's end.
        num_frames: a fixed count instead of the budget's fps.
        stated_s: how long the video is by its annotation; compared with the file, nothing else.
    """

    path: str | list[str]
    budget: VisualBudget
    start_s: float | None = None
    end_s: float | None = None
    num_frames: int | None = None
    stated_s: float | None = None
