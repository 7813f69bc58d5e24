"""Videos whose pictures carry their numbers, so that what a reader gives can be told."""

import os
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

from videomind.video.readers import READERS, choose_reader
from videomind.video.request import Excerpt

SHIPPED = Path(__file__).parents[1] / "data/videos"  # real files, see the README beside that folder
REAL = Path(os.environ.get("VIDEOMIND_REAL_VIDEOS") or SHIPPED)
WIDTH, HEIGHT, BITS = 128, 64, 8
CLOSED = {"x264-params": "keyint=12:bframes=3:b-adapt=0:scenecut=0"}


def is_installed(name: str) -> bool:
    try:
        choose_reader(name)
    except ValueError:
        return False
    return True


INSTALLED = [name for name in READERS if is_installed(name)]


@cache
def numbered(number: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """A picture that carries its number as black and white blocks above a moving texture."""
    height, width = shape
    picture = np.full((height, width, 3), 30, np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            picture[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 220
    x, y = np.meshgrid(np.arange(width), np.arange(height - height // 2))
    waves = np.stack([np.sin((x + 3 * number) / 5), np.sin((y + number) / 4), np.sin((x + y) / 7)], -1)
    picture[height // 2 :] = 128 + 90 * waves
    return picture


def number_of(picture) -> int | None:
    """The number in a picture (H, W, 3); None if it cannot be read."""
    picture = np.asarray(picture)
    top, width = picture[: picture.shape[0] // 2], picture.shape[1]
    blocks = [top[2:-2, bit * width // BITS + 2 : (bit + 1) * width // BITS - 2] for bit in range(BITS)]
    means = [block.mean() for block in blocks]
    if any(abs(mean - 125) < 45 for mean in means):  # black or white, nothing between
        return None
    return sum((mean > 125) << bit for bit, mean in enumerate(means))


def write_video(
    path,
    count: int = 48,
    *,
    codec: str = "libx264",
    options: dict | None = None,
    fps: int = 30,
    pix_fmt: str = "yuv420p",
    times: list[int] | None = None,
    rotation: int = 0,
    pixel_aspect: Fraction | None = None,
    container_options: dict | None = None,
    picture=numbered,
) -> str:
    """Encode `count` numbered pictures, the i-th at `times[i]` / fps s."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=CLOSED if options is None else options)
        stream.height, stream.width = picture(0).shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, fps)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = (times[i] if times else i), Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def frames_that_fit(excerpt: Excerpt) -> int:
    """The largest even number of frames in an excerpt, which a wish above it is lowered to (D201).

    Counted here once more, without our readers and plans.
    """
    if isinstance(excerpt.path, list):
        return (len(excerpt.path) + 1) // 2 * 2  # the last image is repeated
    if excerpt.path.lower().endswith(".gif"):
        with Image.open(excerpt.path) as image:
            total, rate = image.n_frames, excerpt.budget.fps
    else:
        with av.open(excerpt.path) as container:
            stream = container.streams.best("video")
            rate = float(stream.average_rate)
            total = sum(1 for _ in container.decode(stream))
    start_s, end_s = excerpt.start_s or 0, excerpt.end_s
    wanted = total if end_s is None else max(4, round((end_s - start_s) * rate))
    return min(wanted, total) // 2 * 2


def packets(path: str) -> list[tuple[int, int]]:
    """Place and size in bytes of each video packet."""
    with av.open(path) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.size]


def damage(path: str, number: int) -> None:
    """Overwrite all of a packet but its length field."""
    place, size = packets(path)[number]
    data = bytearray(Path(path).read_bytes())
    data[place + 4 : place + size] = bytes(size - 4)
    Path(path).write_bytes(data)
