"""Writes small videos whose pictures carry their numbers, in every container and codec that PyAV can write.

Whole, irregular or damaged. `python tests/videos/making.py FOLDER` writes them.
"""

import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from helpers.videos import numbered

os.environ.setdefault("SVT_LOG", "1")  # errors only
COUNT, FPS, WIDTH, HEIGHT = 50, 25, 96, 64
X264_OPEN = "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0"
X264_CLOSED = "keyint=12:bframes=3:b-adapt=0:scenecut=0"
X264_FIELDS = X264_CLOSED + ":interlaced=1"
X264_REFRESH = "intra-refresh=1:keyint=12:bframes=0"
X265 = "log-level=error:pools=1:frame-threads=1:keyint=12:bframes=3"
X265_OPEN = {"x265-params": X265 + ":open-gop=1"}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A file that was made, and what it shows.

    Attributes:
        path: of it.
        times: of each picture, s from the first; picture i carries the number i.
        is_whole: whether a reader may neither refuse it nor find any fault.
    """

    path: Path
    times: list[float]
    is_whole: bool = True


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a file is written; see `write`.

    Attributes:
        suffix: of the name.
        codec: FFmpeg's encoder.
        options: its options.
        pix_fmt: what it is given.
        ticks: when each picture is shown, in 1 / fps s; None for one after the other.
        rate: that the header states, frames per second.
        start: of the first picture, s.
        sound_s: of silence beside the video.
        container: options of the container.
        format: its name, where the suffix does not tell.
        shape: (H, W) of picture i.
        count: of pictures.
    """

    suffix: str = ".mp4"
    codec: str = "libx264"
    options: dict = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    ticks: tuple[int, ...] | None = None
    rate: int = FPS
    start: float = 0
    sound_s: float = 0
    container: dict = field(default_factory=dict)
    format: str | None = None
    shape: tuple[int, int] = (HEIGHT, WIDTH)
    first: int = 0
    count: int = COUNT


def write(path: Path, recipe: Recipe) -> Made:
    """Write a file by a recipe, byte for byte the same each time."""
    ticks = recipe.ticks or range(recipe.count)
    options = {"fflags": "+bitexact"} | recipe.container  # else Matroska writes random numbers
    with av.open(str(path), "w", format=recipe.format, options=options) as container:
        sound = (
            container.add_stream("aac" if path.suffix != ".webm" else "libopus", rate=48000)
            if recipe.sound_s
            else None
        )
        stream = container.add_stream(recipe.codec, rate=recipe.rate, options=recipe.options)
        stream.height, stream.width = recipe.shape
        stream.pix_fmt = recipe.pix_fmt
        base = Fraction(1, 1000 if recipe.rate == 1000 else FPS)
        stream.codec_context.time_base = base
        stream.codec_context.thread_count = 1  # with more, what is written depends on the machine
        if sound:
            _write_silence(container, sound, recipe.sound_s)
        for i, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(numbered(recipe.first + i, recipe.shape), format="rgb24")
            if recipe.pix_fmt == "pal8":
                frame = _paletted(recipe.first + i, recipe.shape)
            elif recipe.pix_fmt != "rgb24":
                frame = frame.reformat(format=recipe.pix_fmt)
            frame.pts = round((Fraction(tick, FPS) + Fraction(recipe.start)) / base)
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Made(path=path, times=[tick / FPS for tick in ticks])


def _paletted(number: int, shape: tuple[int, int]):
    """A picture of few colours with a palette that is not grey."""
    picture = numbered(number, shape)
    index = np.where(picture[..., 0] > 125, 200, 7).astype(np.uint8)
    colours = np.zeros((256, 4), np.uint8)
    colours[7], colours[200] = (255, 20, 30, 10), (255, 230, 240, 220)
    return av.VideoFrame.from_ndarray((index, colours), format="pal8")


def _write_silence(container, stream, seconds: float) -> None:
    stream.layout = "mono"
    for i in range(round(seconds * 48000) // 960):
        data = np.zeros((1, 960), np.float32)
        format = "fltp" if stream.codec_context.name == "aac" else "flt"
        frame = av.AudioFrame.from_ndarray(data, format=format, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, i * 960, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


X264 = {"x264-params": X264_CLOSED}
VPX = {"g": "12", "b": "400k", "cpu-used": "8", "deadline": "realtime"}
HIDDEN = {
    "b": "300k",
    "auto-alt-ref": "1",
    "lag-in-frames": "16",
    "arnr-maxframes": "5",
    "cpu-used": "5",
    "g": "30",
}
SVT = {"preset": "12", "svtav1-params": "keyint=16:lookahead=16"}
MPEG = {"g": "12", "bf": "2", "b": "2M"}
HIDDEN_444 = HIDDEN | {"profile": "1"}
GRAIN = {"preset": "12", "svtav1-params": "keyint=16:film-grain=20"}
IRREGULAR = {  # ticks of each kind
    "irregular": tuple(i * i // 9 + i for i in range(42)),
    "stands still": (*range(12), *range(130, 160)),
    "slow motion": (*range(0, 80, 4), *range(80, 110)),
}

WHOLE: dict[str, Recipe] = {
    "h264 mp4": Recipe(options=X264),
    "h264 mov": Recipe(suffix=".mov", options=X264),
    "h264 mkv": Recipe(suffix=".mkv", options=X264),
    "h264 ts": Recipe(suffix=".ts", options=X264),
    "h264 flv": Recipe(suffix=".flv", options=X264),
    "h264 avi": Recipe(suffix=".avi", options=X264),
    "h264 nut": Recipe(suffix=".nut", options=X264),
    "h264 raw": Recipe(suffix=".h264", options=X264),
    "h264 fragments": Recipe(options=X264, container={"movflags": "frag_keyframe+empty_moov"}),
    "h264 open groups": Recipe(options={"x264-params": X264_OPEN}),
    "h264 open groups mkv": Recipe(suffix=".mkv", options={"x264-params": X264_OPEN}),
    "h264 open groups ts": Recipe(suffix=".ts", options={"x264-params": X264_OPEN}),
    "h264 intra refresh": Recipe(options={"x264-params": X264_REFRESH}),
    "h264 intra refresh mkv": Recipe(suffix=".mkv", options={"x264-params": X264_REFRESH}),
    "h264 intra refresh ts": Recipe(suffix=".ts", options={"x264-params": X264_REFRESH}),
    "h264 interlaced ts": Recipe(suffix=".ts", options={"flags": "+ildct+ilme", "x264-params": X264_FIELDS}),
    "h264 10 bit": Recipe(options=X264, pix_fmt="yuv420p10le"),
    "hevc mp4": Recipe(codec="libx265", options={"x265-params": X265 + ":open-gop=0"}),
    "hevc open groups mkv": Recipe(suffix=".mkv", codec="libx265", options=X265_OPEN),
    "hevc open groups ts": Recipe(suffix=".ts", codec="libx265", options=X265_OPEN),
    "hevc layers": Recipe(codec="libx265", options={"x265-params": X265 + ":temporal-layers=3:b-pyramid=1"}),
    "vp8 webm": Recipe(suffix=".webm", codec="libvpx", options=VPX),
    "vp8 hidden webm": Recipe(suffix=".webm", codec="libvpx", options=HIDDEN),
    "vp8 hidden mkv": Recipe(suffix=".mkv", codec="libvpx", options=HIDDEN),
    "vp8 hidden ivf": Recipe(suffix=".ivf", codec="libvpx", options=HIDDEN),
    "vp9 webm": Recipe(suffix=".webm", codec="libvpx-vp9", options=VPX),
    "vp9 hidden webm": Recipe(suffix=".webm", codec="libvpx-vp9", options=HIDDEN),
    "vp9 hidden mp4": Recipe(codec="libvpx-vp9", options=HIDDEN),
    "vp9 444 mkv": Recipe(suffix=".mkv", codec="libvpx-vp9", options=HIDDEN_444, pix_fmt="yuv444p"),
    "av1 mp4": Recipe(codec="libsvtav1", options=SVT),
    "av1 webm": Recipe(suffix=".webm", codec="libsvtav1", options=SVT),
    "av1 ivf": Recipe(suffix=".ivf", codec="libsvtav1", options=SVT),
    "av1 10 bit": Recipe(codec="libsvtav1", options=SVT, pix_fmt="yuv420p10le"),
    "av1 grain": Recipe(codec="libsvtav1", options=GRAIN),
    "mpeg4 mp4": Recipe(codec="mpeg4", options=MPEG),
    "mpeg4 avi": Recipe(suffix=".avi", codec="mpeg4", options={"g": "12", "b": "2M"}),
    "mpeg4 b avi": Recipe(suffix=".avi", codec="mpeg4", options=MPEG),
    "mpeg4 mkv": Recipe(suffix=".mkv", codec="mpeg4", options=MPEG),
    "mpeg2 ts": Recipe(suffix=".ts", codec="mpeg2video", options=MPEG),
    "mpeg2 mpg": Recipe(suffix=".mpg", codec="mpeg2video", options=MPEG),
    "mpeg2 vob": Recipe(suffix=".vob", codec="mpeg2video", options=MPEG),
    "mpeg1 mpg": Recipe(suffix=".mpg", codec="mpeg1video", options=MPEG),
    "mjpeg avi": Recipe(suffix=".avi", codec="mjpeg", pix_fmt="yuvj420p"),
    "mjpeg mov": Recipe(suffix=".mov", codec="mjpeg", pix_fmt="yuvj420p"),
    "wmv2 wmv": Recipe(suffix=".wmv", codec="wmv2", options={"b": "1M", "g": "12"}),
    "wmv1 avi": Recipe(suffix=".avi", codec="wmv1", options={"b": "1M", "g": "12"}),
    "msmpeg4 avi": Recipe(suffix=".avi", codec="msmpeg4", options={"b": "1M", "g": "12"}),
    "flv1 flv": Recipe(suffix=".flv", codec="flv", options={"b": "1M", "g": "12"}),
    "h263 3gp": Recipe(suffix=".3gp", codec="h263", options={"b": "1M", "g": "12"}, shape=(96, 128)),
    "prores mov": Recipe(suffix=".mov", codec="prores_ks", pix_fmt="yuv422p10le"),
    "ffv1 mkv": Recipe(suffix=".mkv", codec="ffv1", options={"g": "12", "level": "3"}),
    "huffyuv avi": Recipe(suffix=".avi", codec="huffyuv", pix_fmt="yuv422p"),
    "ffvhuff nut": Recipe(suffix=".nut", codec="ffvhuff"),
    "utvideo avi": Recipe(suffix=".avi", codec="utvideo"),
    "raw avi": Recipe(suffix=".avi", codec="rawvideo", pix_fmt="bgr24"),
    "raw palette avi": Recipe(suffix=".avi", codec="rawvideo", pix_fmt="pal8"),
    "raw palette mov": Recipe(suffix=".mov", codec="rawvideo", pix_fmt="pal8"),
    "raw palette nut": Recipe(suffix=".nut", codec="rawvideo", pix_fmt="pal8"),
    "qtrle mov": Recipe(suffix=".mov", codec="qtrle", pix_fmt="rgb24", options={"g": "12"}),
    "qtrle grey mov": Recipe(suffix=".mov", codec="qtrle", pix_fmt="gray", options={"g": "12"}),
    "png mov": Recipe(suffix=".mov", codec="png", pix_fmt="rgb24"),
    "apng": Recipe(suffix=".apng", codec="apng", pix_fmt="rgb24"),
    "zmbv avi": Recipe(suffix=".avi", codec="zmbv", pix_fmt="bgr0"),
    "cinepak avi": Recipe(suffix=".avi", codec="cinepak", pix_fmt="rgb24", options={"g": "12"}),
    "svq1 mov": Recipe(suffix=".mov", codec="svq1", pix_fmt="yuv410p", options={"b": "2M", "g": "12"}),
    "flashsv flv": Recipe(suffix=".flv", codec="flashsv", pix_fmt="bgr24", options={"g": "12"}),
    "snow nut": Recipe(suffix=".nut", codec="snow", options={"b": "2M", "g": "12"}),
    "rv20 rm": Recipe(suffix=".rm", codec="rv20", options={"b": "2M", "g": "12"}),
    "jpeg2000 mov": Recipe(suffix=".mov", codec="jpeg2000", pix_fmt="rgb24"),
    "speedhq nut": Recipe(suffix=".nut", codec="speedhq", pix_fmt="yuv420p"),
    "magicyuv avi": Recipe(suffix=".avi", codec="magicyuv", pix_fmt="gbrp"),
    # The header states a rate that is not the pictures'.
    "rate 1000 mkv": Recipe(suffix=".mkv", options=X264, rate=1000),
    "rate 1000 flv": Recipe(suffix=".flv", options=X264, rate=1000),
    "rate 1000 mp4": Recipe(options=X264, rate=1000),
    "rate 1000 vp8": Recipe(suffix=".webm", codec="libvpx", options=HIDDEN, rate=1000),
    # The rate varies.
    **{
        f"{how} {name}": Recipe(**recipe, ticks=ticks)
        for how, ticks in IRREGULAR.items()
        for name, recipe in {
            "mp4": {"options": X264},
            "mkv": {"options": X264, "suffix": ".mkv"},
            "ts": {"options": X264, "suffix": ".ts"},
            "flv": {"options": X264, "suffix": ".flv"},
            "vp9": {"codec": "libvpx-vp9", "options": HIDDEN, "suffix": ".webm"},
            "mjpeg avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "suffix": ".avi"},
            "wmv": {"codec": "wmv2", "options": {"b": "1M", "g": "12"}, "suffix": ".wmv"},
            "mpeg4 mov": {"codec": "mpeg4", "options": MPEG, "suffix": ".mov"},
        }.items()
    },
    "with sound mp4": Recipe(options=X264, sound_s=2),
    "with sound mkv": Recipe(options=X264, sound_s=2, suffix=".mkv"),
    "long sound mp4": Recipe(options=X264, sound_s=4),
    "far start ts": Recipe(options=X264, suffix=".ts", start=500),
}  # fmt: skip


def whole(folder: Path, name: str) -> Made:
    """Write one of `WHOLE`.

    Raises:
        av.error.FFmpegError: this PyAV cannot write it.
        ValueError: likewise.
    """
    recipe = WHOLE[name]
    return write(folder / (name.replace(" ", "_") + recipe.suffix), recipe)


def late(folder: Path) -> Made:
    """Pictures that begin 3 s after the sound."""
    made = write(folder / "late.mp4", Recipe(options=X264, sound_s=5, start=3))
    return Made(path=made.path, times=[time + 3 for time in made.times])


def edited(folder: Path) -> Made:
    """An edit list cuts off the first six pictures."""
    source, path = write(folder / "all.mp4", Recipe(options=X264)).path, folder / "edited.mp4"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        shift = round(6 / FPS / old.streams.video[0].time_base)
        for packet in old.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                new.mux(packet)
    return Made(path=path, times=[-1.0] * 6 + [i / FPS for i in range(COUNT - 6)])


def joined(folder: Path, **second) -> Made:
    """Two transport streams one behind the other; the times of the second start again."""
    half = COUNT // 2
    parts = [
        write(folder / f"part{i}.ts", Recipe(options=X264, suffix=".ts", count=half, first=i * half, **extra))
        for i, extra in enumerate(({}, second))
    ]
    path = folder / f"joined{len(second)}.ts"
    path.write_bytes(b"".join(part.path.read_bytes() for part in parts))
    return Made(path=path, times=[i / FPS for i in range(2 * half)], is_whole=False)


def wrapped(folder: Path) -> Made:
    """A transport stream whose clock of 33 bits wraps after a second."""
    return write(folder / "wrapped.ts", Recipe(options=X264, suffix=".ts", start=2**33 / 90000 - 1))


def begun_within(folder: Path) -> Made:
    """A recording that begins within a group of pictures."""
    source, path = write(folder / "group.ts", Recipe(options=X264, suffix=".ts")).path, folder / "within.ts"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size and number >= 5:
                packet.stream = stream
                new.mux(packet)
    return Made(path=path, times=[-1.0] * 12 + [i / FPS for i in range(COUNT - 12)], is_whole=False)


def of_two_sizes(folder: Path) -> Made:
    """A stream that changes its size."""
    return joined(folder, shape=(2 * HEIGHT, WIDTH))


ODD: dict[str, Callable[[Path], Made]] = {
    "late": late,
    "edited": edited,
    "joined": joined,
    "joined far": lambda folder: joined(folder, start=500),
    "wrapped": wrapped,
    "begun within": begun_within,
    "two sizes": of_two_sizes,
}


def cut(made: Made, tenth: int) -> Made:
    """Cut a file off at a tenth of its length."""
    return _changed(made, f"cut{tenth}", lambda data: data[: len(data) * tenth // 10])


def flipped(made: Made, seed: int, count: int = 3) -> Made:
    """Flip bits of a file, anywhere but at its very beginning."""
    rng = random.Random(seed)

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(count):
            changed[rng.randrange(min(64, len(data) // 2), len(data))] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return _changed(made, f"flipped{seed}", change)


def zeroed(made: Made, seed: int) -> Made:
    """Overwrite a stretch of a file by zeros."""
    rng = random.Random(seed)

    def change(data: bytes) -> bytes:
        size = max(200, len(data) // 15)
        place = rng.randrange(len(data) // 8, max(len(data) // 8 + 1, len(data) - size))
        return data[:place] + bytes(min(size, len(data) - place)) + data[place + size :]

    return _changed(made, f"zeroed{seed}", change)


def _changed(made: Made, word: str, change: Callable[[bytes], bytes]) -> Made:
    path = made.path.with_name(f"{made.path.stem}_{word}{made.path.suffix}")
    path.write_bytes(change(made.path.read_bytes()))
    return Made(path=path, times=made.times, is_whole=False)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for name in WHOLE:
        print(whole(target, name).path)
    for make in ODD.values():
        print(make(target).path)
