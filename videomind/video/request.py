"""What is asked of a video: which part, how finely. Made from a sample, answered by the readers."""

from dataclasses import dataclass

from videomind.roles import VisualBudget


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """What to decode: a video, a part of it, and how finely.

    Attributes:
        path: a video file, a .gif or a list of image files.
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
