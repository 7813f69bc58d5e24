"""From an `Excerpt` to the frames the model sees: which frames, from which reader, at what size.

Used by training and inference alike, between the conversation and the encoding. The decoders are in
`videomind.video.readers`.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from videomind.faults import RunError, ends_run
from videomind.video.images import IMAGE_ERRORS, read_image
from videomind.video.reader import BadVideoError, VideoReader, replace_missing
from videomind.video.readers import open_reader
from videomind.video.request import Excerpt, ImageList

__all__ = [
    "BadVideoError",
    "Frames",
    "choose_frames",
    "read_excerpt",
    "resize_frames",
    "smart_num_frames",
    "smart_resize",
    "video_duration",
]

logger = logging.getLogger(__name__)

DEFAULT_FPS = 2.0
MIN_FRAMES = 4
MAX_FRAMES = 768
MAX_ASPECT_RATIO = 200
IMAGE_LIST_FPS = 1.0  # a list of images counts one second per image
GIF_DURATION_FPS = 1.0
LENGTH_OFF_S, LENGTH_OFF = 1.0, 0.05  # by how much a length may differ from the file's: the smaller
MOST_OVERHANG = 0.1  # of the video, by which an excerpt may end behind it as in published training
MAX_GAPS = 5  # that are named
EMPTY_LIST = "an empty list of images, not a video"


@dataclass(frozen=True, kw_only=True)
class Frames:
    """A decoded excerpt.

    Attributes:
        frames: uint8 (T, 3, h, w) RGB, resized.
        indices: number of each frame in the video.
        fps: of the video; where its rate varies, of the even grid that frames are chosen on.
        total_frames: of the video, or positions of that grid; by `fps` they give the video's length.
        problems: one line for each thing that was replaced or concealed, or that is not as it says.
    """

    frames: Tensor
    indices: list[int]
    fps: float
    total_frames: int
    problems: list[str] = field(default_factory=list)


def smart_num_frames(
    *,
    considered: int,
    video_fps: float,
    frames_per_step: int,
    fps: float | None = None,
    num_frames: int | None = None,
    min_frames: int = MIN_FRAMES,
    max_frames: int | None = None,
) -> int:
    """Count the frames to take: full steps of the backbone, never more frames than there are.

    Args:
        considered: frames of the excerpt.
        video_fps: their rate, frames per second.
        frames_per_step: of the backbone; the count is a multiple.
        fps: wanted frames per second, 2 unless given.
        num_frames: the wanted count itself, instead of `fps`.
        min_frames, max_frames: bounds of what `fps` gives (max_frames: 768 unless given).

    Raises:
        ValueError: Both wishes are given, or not even one step comes out.
    """
    if fps is not None and num_frames is not None:
        raise ValueError(f"Either fps ({fps}) or num_frames ({num_frames}) can be given, not both")
    # The rule of qwen-vl-utils' `smart_nframes`; but an excerpt too short for the wish gives what it has.
    wish: float
    if num_frames is not None:
        wish = num_frames
    else:
        # 1. The bounds in full steps: the lower one rounded up, the upper one down.
        lowest = math.ceil(min_frames / frames_per_step) * frames_per_step
        highest = min(MAX_FRAMES, considered) if max_frames is None else max_frames
        highest = highest // frames_per_step * frames_per_step
        # 2. The wish for the excerpt's length, within the bounds.
        wish = considered / video_fps * (DEFAULT_FPS if fps is None else fps)
        wish = min(max(wish, lowest), highest)
    # 3. The nearest number of full steps (Python's round, half to even), lowered where it exceeds what is
    #    there (D201).
    count = round(wish / frames_per_step) * frames_per_step
    count = min(count, considered // frames_per_step * frames_per_step)
    if count < frames_per_step:
        words = f"{fps or DEFAULT_FPS} frames per second" if num_frames is None else f"{num_frames} frames"
        raise ValueError(
            f"fewer than {frames_per_step} frames remain of an excerpt of {considered} ({words} wanted)"
        )
    return count


def choose_frames(*, total_frames: int, fps: float, excerpt: Excerpt) -> list[int]:
    """Choose the frames of a video to take for an excerpt.

    An excerpt that hangs over the video's end keeps its length, so its last frames repeat: as the
    published checkpoints were trained.

    Args:
        total_frames, fps: of the video.
        excerpt: with the wanted budget.

    Returns:
        Frame numbers, not decreasing, in full steps of the backbone.

    Raises:
        BadVideoError: Not even one step remains.
        ValueError: A bound of the excerpt is not finite.
    """
    start_s = 0 if excerpt.start_s is None else excerpt.start_s
    end_s = total_frames / fps if excerpt.end_s is None else excerpt.end_s
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        raise ValueError(f"{excerpt.path}: start_s ({start_s}) and end_s ({end_s}) must be finite")
    # 1. The excerpt's ends as frames of the video.
    first, last = (min(max(round(t * fps), 0), total_frames - 1) for t in (start_s, end_s))
    if first > last:
        logger.warning("%s: the excerpt's ends are reversed (%s s to %s s)", excerpt.path, start_s, end_s)
        first, last = last, first
    # 2. Their number, by the length before clamping (K203).
    budget, units = excerpt.budget, excerpt.budget.known_units()
    try:
        count = smart_num_frames(
            considered=min(max(MIN_FRAMES, round((end_s - start_s) * fps)), total_frames),
            video_fps=fps,
            frames_per_step=units.frames_per_step,
            fps=budget.fps if excerpt.num_frames is None else None,
            num_frames=excerpt.num_frames,
            min_frames=budget.min_frames,
            max_frames=budget.max_frames,
        )
    except ValueError as error:
        raise BadVideoError(f"{excerpt.path}: {error}") from error
    # 3. Evenly spread, both ends included.
    return torch.linspace(first, last, count).round().long().tolist()


def smart_resize(
    height: int, width: int, *, min_pixels: int, max_pixels: int, token_side: int
) -> tuple[int, int]:
    """Compute the size to bring frames to: whole tokens within the bounds, the ratio kept where possible.

    A very long and narrow frame can come out with a side of 0 pixels, as in the rule of published training.

    Args:
        height, width: of the frame, pixels.
        min_pixels, max_pixels: bounds of the area.
        token_side: of a square token, pixels.

    Returns:
        (height, width), pixels.

    Raises:
        ValueError: The aspect ratio is above 200.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(f"frames of {width} x {height} pixels: an aspect ratio above {MAX_ASPECT_RATIO}")
    # qwen-vl-utils' rule (`smart_resize`): to the nearest token, then back into the bounds by one factor.
    size = [max(token_side, round(side / token_side) * token_side) for side in (height, width)]
    if size[0] * size[1] < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        size = [math.ceil(side * scale / token_side) * token_side for side in (height, width)]
    if size[0] * size[1] > max_pixels:  # also where rounding up has overshot
        scale = math.sqrt(height * width / max_pixels)
        size = [math.floor(side / scale / token_side) * token_side for side in (height, width)]
    return size[0], size[1]


def _frame_size(height: int, width: int, excerpt: Excerpt) -> tuple[int, int]:
    """Apply `smart_resize` by the excerpt's budget.

    Raises:
        BadVideoError: No such size exists.
    """
    budget, side = excerpt.budget, excerpt.budget.known_units().token_side
    bounds = {"min_pixels": budget.min_pixels, "max_pixels": budget.max_pixels}
    try:
        size = smart_resize(height, width, **bounds, token_side=side)
    except ValueError as error:
        raise BadVideoError(f"{excerpt.path}: {error}") from error
    if 0 in size:
        raise BadVideoError(
            f"{excerpt.path}: frames of {width} x {height} pixels are too narrow for {budget}"
        )
    return size


def resize_frames(frames: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Resize as torchvision does: bicubic with antialias, in float32, rounded.

    (Not by torch's uint8 kernel: that is off by up to 3 levels from what checkpoints were trained on.)

    Args:
        frames: uint8 (T, H, W, 3).
        size: (h, w) pixels.

    Returns:
        uint8 (T, 3, h, w).
    """
    planes = frames.permute(0, 3, 1, 2)  # (T, 3, H, W)
    if planes.shape[2:] == size:
        return planes.contiguous()
    planes = planes.to(torch.float32, memory_format=torch.contiguous_format)
    planes = F.interpolate(planes, size=size, mode="bicubic", antialias=True)
    return planes.clamp_(0, 255).round_().to(torch.uint8)


def read_excerpt(excerpt: Excerpt, *, reader: str | None = None) -> Frames:
    """Decode and resize the frames of an excerpt.

    A list of image files without a rate is taken whole: one frame each, the last repeated to fill its step;
    the budget's frame rate and maximum, start and end do not apply, as in published training.

    Args:
        excerpt: what to decode.
        reader: `pyav`, `decord` or `torchcodec` (None: `VIDEOMIND_VIDEO_READER`, else pyav).

    Raises:
        BadVideoError: the video is unusable.
        RunError: the reader is.
    """
    return read_excerpts([excerpt], reader=reader)[0]


def read_excerpts(excerpts: Sequence[Excerpt], *, reader: str | None = None) -> list[Frames]:
    """Decode several excerpts of one video in one pass; each result is that of `read_excerpt` alone.

    Args:
        excerpts: of the same path and of the same pixels per frame and, for a .gif, fps.
        reader: see `read_excerpt`.

    Raises:
        ValueError: as `read_excerpt` does.
    """
    first = excerpts[0]
    if isinstance(first.path, list | tuple):
        return [_read_images(excerpt) for excerpt in excerpts]

    def resize(frame: Tensor) -> Tensor:  # (H, W, 3) -> (3, h, w)
        height, width = frame.shape[:2]
        if first.budget.square_pixels:  # stretched along the side that is too short
            height = round(height * max(1 / video.pixel_aspect, 1))
            width = round(width * max(video.pixel_aspect, 1))
        return resize_frames(frame[None], size=_frame_size(height, width, first))[0]

    with open_reader(first.path, reader, gif_fps=first.budget.fps) as video:
        if first.budget.square_pixels and video.pixel_aspect is None:
            raise RunError(f"--square_pixels: {video.module} does not tell the shape of pixels, pyav does")
        clock = video.clock
        of_video = {"fps": clock.fps, "total_frames": clock.total}
        plans = [
            [clock.frame_at(i) for i in choose_frames(**of_video, excerpt=excerpt)] for excerpt in excerpts
        ]
        pictures = video.get_many(plans, transform=resize)
        return [
            Frames(
                frames=frames,
                indices=indices,
                problems=problems + _video_time_problems(excerpt, video),
                **of_video,
            )
            for excerpt, indices, (frames, problems) in zip(excerpts, plans, pictures, strict=True)
        ]


def _video_time_problems(excerpt: Excerpt, video: VideoReader) -> list[str]:
    if not video.has_times:
        return []
    return time_problems(excerpt, video.path, length_s=video.clock.duration_s, gaps=video.gaps)


def time_problems(
    excerpt: Excerpt, name: str, *, length_s: float, gaps: Sequence[tuple[float, float]] = ()
) -> list[str]:
    """Say where an excerpt's times and the file's do not go together, one line each.

    Args:
        excerpt: what was asked for.
        name: of the file, or the list of images.
        length_s: of the video.
        gaps: where pictures are missing, see `VideoReader`.
    """
    problems = []
    start, end = excerpt.start_s or 0.0, length_s if excerpt.end_s is None else excerpt.end_s
    start, end = min(start, end), max(start, end)
    if start >= length_s:
        problems.append(f"begins at {start:.1f} s, behind the video's end at {length_s:.1f} s")
    elif end - length_s > max(LENGTH_OFF_S, MOST_OVERHANG * length_s):
        problems.append(f"ends at {end:.1f} s, far behind the video's end at {length_s:.1f} s")
    stated = excerpt.stated_s
    if stated is not None and abs(stated - length_s) > min(LENGTH_OFF_S, LENGTH_OFF * length_s):
        problems.append(f"is of a video of {stated:.2f} s by its annotation, the file has {length_s:.2f} s")
    problems += [
        f"lacks pictures from {a:.2f} s to {b:.2f} s, or nothing moves there"
        for a, b in gaps
        if a < end and b > start
    ][:MAX_GAPS]
    return [f"{name}: the excerpt {problem}" for problem in problems]


def _read_images(excerpt: Excerpt) -> Frames:
    """Read a list of image files as a video. Each is resized by PIL, which differs from torch by a level."""
    paths = list(excerpt.path)
    if not paths:
        raise BadVideoError(EMPTY_LIST)
    name = f"{len(paths)} images from {paths[0]}"
    if isinstance(excerpt.path, ImageList):
        fps = excerpt.path.fps
        indices = choose_frames(total_frames=len(paths), fps=fps, excerpt=replace(excerpt, path=name))
    else:
        fps, indices = IMAGE_LIST_FPS, list(range(len(paths)))
        indices += indices[-1:] * (-len(indices) % excerpt.budget.known_units().frames_per_step)
    pool: dict[int, Tensor] = {}
    reasons: dict[int, str] = {}
    for i in sorted(set(indices)):
        try:
            rgb = read_image(paths[i])
        except IMAGE_ERRORS as error:
            if ends_run(error):
                raise
            reasons[i] = str(error)
            continue
        height, width = _frame_size(rgb.height, rgb.width, excerpt)
        pool[i] = torch.from_numpy(np.array(rgb.resize((width, height), Image.Resampling.BICUBIC)))
    problems = replace_missing(sorted(set(indices)), pool, name, reasons)
    if isinstance(excerpt.path, ImageList):
        problems += time_problems(excerpt, name, length_s=len(paths) / fps)
    sizes = {frame.shape for frame in pool.values()}
    if len(sizes) > 1:
        raise BadVideoError(f"{name}: of different sizes {sorted(sizes)}")
    frames = torch.stack([pool[i] for i in indices]).permute(0, 3, 1, 2).contiguous()
    return Frames(frames=frames, indices=indices, fps=fps, total_frames=len(paths), problems=problems)


def video_duration(path: str | Sequence[str], *, reader: str | None = None) -> float:
    """Read the length of a video in seconds: its frames by their rate, or by their times where that varies.

    .gif files and lists of images without a rate count one second per frame. (A .gif's seconds depend on
    the budget that reads it; this is the grounder's, at one frame per second.)

    Raises:
        BadVideoError: it is no usable video.
    """
    if isinstance(path, list | tuple):
        if not path:
            raise BadVideoError(EMPTY_LIST)
        return len(path) / (path.fps if isinstance(path, ImageList) else IMAGE_LIST_FPS)
    with open_reader(path, reader, gif_fps=GIF_DURATION_FPS) as video:
        return video.clock.duration_s
