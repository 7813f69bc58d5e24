"""Decoders of video files: PyAV by default, decord or torchcodec by choice, PIL for a .gif.

`open_reader` picks one; `videomind.video.excerpts` plans which frames it reads and resizes them. Frames
are numbered in the order they are shown. All readers return the same pixels of the intact 8-bit H.264,
HEVC, VP8 and VP9 files tried; where they are known to differ, their docstrings say so.
"""

import os
from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np

from videomind.faults import RunError, ends_run
from videomind.roles import nearest
from videomind.video.decord_process import DecordProcess
from videomind.video.images import GifReader, is_gif
from videomind.video.pyav import PyAVReader
from videomind.video.reader import DECODER_THREADS, BadVideoError, VideoReader, file_identity

READER_VARIABLE = "VIDEOMIND_VIDEO_READER"
DEFAULT_READER = "pyav"
DECORD_BATCH = 16  # frames; bounds how many full-size frames are held at once


class DecordReader(VideoReader):
    """decord: x86-64 only and no longer maintained; it cannot read AV1 and gets 10-bit colours wrong.

    It stops at the first undecodable frame, so such a file is refused. Where groups of pictures are open
    or keep their order in other ways than H.264's usual (some HEVC), it counts wrongly after seeking and
    gives frames nearby; the original system, which used it, saw those. It runs in a process of its own,
    because some damaged files make it abort or hang.
    """

    module = "decord"
    remedy = "pip install 'videomind[decord]'"

    def __init__(self, path: str):
        super().__init__(path)
        self._process = DecordProcess(path, DECODER_THREADS)
        try:
            self.total_frames, self.fps = self._process.ask(None)
        except RuntimeError as error:
            self.close()
            raise BadVideoError(f"{path}: cannot be opened (tried decord)") from error

    def close(self) -> None:
        self._process.close()

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for first in range(0, len(indices), DECORD_BATCH):
            part = list(indices[first : first + DECORD_BATCH])
            try:
                frames = self._process.ask(part)
            except RuntimeError as error:
                frames_near = f"undecodable near frames {part[0]} to {part[-1]}"
                raise BadVideoError(
                    f"{self.path}: {frames_near} (tried decord; pyav can read around it)"
                ) from error
            yield from zip(part, frames, strict=True)


class TorchCodecReader(VideoReader):
    """torchcodec, on the CPU; needs FFmpeg installed on the system."""

    module = "torchcodec"
    remedy = "pip install 'videomind[torchcodec]', and install FFmpeg"

    @classmethod
    def load(cls) -> ModuleType:
        torchcodec = super().load()
        if getattr(torchcodec, "ffmpeg_major_version", "unknown") is None:
            raise ImportError("torchcodec finds no FFmpeg that it can load")
        return torchcodec

    def __init__(self, path: str):
        super().__init__(path)
        try:
            self._video = self.load().decoders.VideoDecoder(
                path, dimension_order="NHWC", num_ffmpeg_threads=DECODER_THREADS, seek_mode="exact"
            )
        except (RuntimeError, ValueError) as error:
            raise BadVideoError(f"{path}: cannot be opened (tried torchcodec)") from error
        self.total_frames = len(self._video)
        # Not the header's figure: that is the base rate where the frame rate varies.
        self.fps = float(self._video.metadata.average_fps or 0)

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in indices:
            try:
                frame = self._video.get_frame_at(index)
            except RuntimeError as error:  # undecodable
                if ends_run(error):
                    raise
                self.reasons[index] = str(error).splitlines()[0]
                continue
            yield index, frame.data.numpy()


READERS: dict[str, type[VideoReader]] = {
    "pyav": PyAVReader,
    "decord": DecordReader,
    "torchcodec": TorchCodecReader,
}


def reader_name() -> str:
    """Name the reader that this process uses: of the variable VIDEOMIND_VIDEO_READER, else `pyav`."""
    return os.environ.get(READER_VARIABLE) or DEFAULT_READER


def choose_reader(name: str | None = None) -> type[VideoReader]:
    """Choose the class of a reader by name; None is the variable VIDEOMIND_VIDEO_READER, else `pyav`.

    Raises:
        RunError: the name is unknown, or the reader cannot be loaded here.
    """
    origin = "reader" if name else READER_VARIABLE
    name = name or reader_name()
    if name not in READERS:
        raise RunError(f"Unknown video reader {name!r} ({origin}). {nearest(name, READERS)}")
    reader = READERS[name]
    try:
        reader.load()
    except (ImportError, RuntimeError, OSError) as error:  # the latter two: a missing system library
        raise RunError(
            f"The video reader {name!r} ({origin}) cannot be loaded here ({error}): {reader.remedy}. "
            f"Allowed: {', '.join(READERS)}"
        ) from error
    return reader


def _take_times(video: VideoReader) -> None:
    """Give the frames of another reader the times that PyAV finds, where both count the same frames."""
    try:
        with PyAVReader(video.path) as other:
            if other.total_frames == video.total_frames:
                video.clock, video.gaps = other.clock, other.gaps
            else:
                counts = f"{video.total_frames} frames by {video.module}, {other.total_frames} by pyav"
                video.problems.append(f"{video.path}: {counts}")
    except BadVideoError as error:
        video.problems.append(str(error))


def open_reader(path: str | os.PathLike, name: str | None = None, *, gif_fps: float = 1.0) -> VideoReader:
    """Open a video file.

    Args:
        path: of the file.
        name: see `choose_reader`.
        gif_fps: the frame rate that a .gif is taken to have.

    Raises:
        BadVideoError: it is no usable video.
        RunError: the reader is not there.
    """
    reader = choose_reader(name)
    path = os.fspath(path)
    file_identity(path)  # a file that is there
    if os.path.getsize(path) == 0:
        raise BadVideoError(f"{path}: an empty file")
    video = GifReader(path, gif_fps) if is_gif(path) else reader(path)
    if not isinstance(video, GifReader | PyAVReader):
        _take_times(video)
    if video.total_frames < 1:
        video.close()
        raise BadVideoError(f"{path}: no picture of it can be decoded")
    if not video.fps > 0:
        video.close()
        raise BadVideoError(f"{path}: {video.total_frames} frames at {video.fps} per second")
    return video
