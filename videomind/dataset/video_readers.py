"""Decoders of video files: PyAV by default, decord or torchcodec by choice, PIL for a .gif.

`open_reader` picks one; `videomind.dataset.video` plans which frames it reads and resizes them. Frames
are numbered in the order they are shown. All readers return the same pixels of the intact 8-bit H.264,
HEVC, VP8 and VP9 files tried; where they are known to differ, their docstrings say so.
"""

import importlib
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from videomind.roles import nearest

READER_VARIABLE = "VIDEOMIND_VIDEO_READER"
DEFAULT_READER = "pyav"
MAX_MISSING = 0.1  # share of the wanted frames that neighbours may stand in for
REPLACEMENT_RADIUS = 16  # frames on either side of an undecodable one that are tried in its place
# More threads per video only fight with the other loader workers; two halve the wait of a lone reader.
DECODER_THREADS = 2
IMAGE_ERRORS = (OSError, SyntaxError, EOFError, ValueError)  # what PIL raises on broken files
DECORD_BATCH = 16  # frames; bounds how many full-size frames are held at once


class BadVideoError(ValueError):
    """A video that cannot be used; the message names it, what is wrong and what was tried."""


def replace_missing(wanted: Sequence[int], pool: dict[int, Tensor], path: str) -> list[str]:
    """Let the nearest frame of `pool` stand in for each wanted frame that is not there.

    Args: wanted, distinct frame numbers; pool, what could be decoded, by number, which gets the
    stand-ins as well; path, for messages.
    Returns: one line that says what was replaced, or nothing.
    Raises: BadVideoError when more than a tenth of the wanted frames are missing.
    """
    missing = [i for i in wanted if i not in pool]
    if not missing:
        return []
    count = f"{len(missing)} of the {len(wanted)} wanted frames cannot be decoded"
    if len(missing) > MAX_MISSING * len(wanted):
        raise BadVideoError(f"{path}: {count}, more than {MAX_MISSING:.0%}")
    sources = {i: min(pool, key=lambda j: (abs(j - i), j)) for i in missing}
    pool |= {i: pool[j] for i, j in sources.items()}
    pairs = ", ".join(f"{j} for {i}" for i, j in list(sources.items())[:8])
    return [f"{path}: {count}; the nearest stand in ({pairs}{', …' if len(missing) > 8 else ''})"]


class VideoReader(ABC):
    """One open video. Use it in a `with` block.

    Attributes:
        path: the file.
        total_frames: frames it has, counted, not taken from the container's word.
        fps: average frames per second.
        problems: what is wrong with the file as such, one line each.
        concealed: numbers of frames that were damaged and painted over by the decoder.
    """

    total_frames: int
    fps: float
    module: ClassVar[str] = "PIL"  # what decodes
    remedy: ClassVar[str] = "pip install videomind"  # how to get that

    @classmethod
    def load(cls) -> ModuleType:
        """Import what decodes. Raises ImportError, RuntimeError or OSError when it is not there."""
        return importlib.import_module(cls.module)

    def __init__(self, path: str):
        self.path = path
        self.problems: list[str] = []
        self.concealed: set[int] = set()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027  (only some readers hold a file open)
        """Release the file."""

    @abstractmethod
    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(number, (H, W, 3) uint8 RGB)` of distinct, increasing frame numbers.

        What cannot be decoded is left out. The order of the results is free.
        """

    def get_frames(
        self, indices: Sequence[int], *, transform: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, list[str]]:
        """Read frames.

        Args:
            indices: frame numbers, in any order, repeats allowed.
            transform: applied to each (H, W, 3) frame as soon as it is decoded, so that no more than
                one full-size frame need be held.
        Returns: uint8 (T, H, W, 3), or the transformed frames stacked; one line per problem met.
        Raises: ValueError for a number outside the video, BadVideoError when too much is undecodable.
        """
        wanted = sorted(set(indices))
        if not wanted or wanted[0] < 0 or wanted[-1] >= self.total_frames:
            raise ValueError(f"{self.path}: frames {wanted} are not within its {self.total_frames} frames")

        def read(numbers: Sequence[int]) -> dict[int, Tensor]:
            frames = ((i, torch.from_numpy(frame)) for i, frame in self.decode(numbers))
            return {i: transform(frame) if transform else frame for i, frame in frames}

        pool = read(wanted)
        missing = [i for i in wanted if i not in pool]
        if 0 < len(missing) <= MAX_MISSING * len(wanted):
            around = {j for i in missing for j in range(i - REPLACEMENT_RADIUS, i + REPLACEMENT_RADIUS + 1)}
            pool |= read(sorted(j for j in around - set(wanted) if 0 <= j < self.total_frames))
        problems = self.problems + replace_missing(wanted, pool, self.path)
        if concealed := sorted(self.concealed & set(wanted)):
            problems.append(f"{self.path}: damaged frames, painted over by the decoder: {concealed}")
        return torch.stack([pool[i] for i in indices]), problems


@dataclass(frozen=True)
class _PacketTable:
    """Where each frame is, found by reading all packets of a stream once without decoding any.

    Attributes:
        pts, dts: presentation and decoding time of each packet, in the file's (decoding) order.
        numbers: place in that order by (pts, size). The size as well, because right after a seek MPEG
            streams give part of a packet under a false time.
        frames: the packet of each frame, in the order they are shown.
        keys: the packets that decoding can start at, by pts.
        seekable: whether pts tells which frame a decoded picture is.
    """

    pts: list[int | None]
    dts: list[int | None]
    numbers: dict[tuple[int | None, int], int]
    frames: list[int]
    keys: list[int]
    seekable: bool

    @classmethod
    def read(cls, packets: Iterable, *, may_mistime: bool) -> "_PacketTable":
        """Build the table. Args: packets; may_mistime, whether pts may be no more than a counter."""
        pts, dts, shown, keys = [], [], [], []
        numbers = {}
        for number, packet in enumerate(packets):
            pts.append(packet.pts)
            dts.append(packet.dts)
            numbers[packet.pts, packet.size] = number
            if packet.is_keyframe:
                keys.append(number)
            if not packet.is_discard:  # cut off by an edit list: decoded, never shown
                shown.append(number)
        seekable = None not in pts and len(set(pts)) == len(pts)
        if seekable and may_mistime:
            seekable = pts != sorted(pts)
        if seekable:
            shown.sort(key=pts.__getitem__)
            keys.sort(key=pts.__getitem__)
        return cls(pts=pts, dts=dts, numbers=numbers, frames=shown, keys=keys, seekable=seekable)

    def runs(self, indices: Sequence[int], *, earlier: int) -> list[tuple[int, int, dict[int, int]]]:
        """The stretches of packets to decode for some frames; whole groups between are passed over.

        A frame needs everything from the last key picture shown before it, which is also right for the
        leading pictures of an open group: those come after the next key picture in the file.
        Args: indices, increasing frame numbers; earlier, by how many key pictures to start too soon.
        Returns: (first packet, last packet, {pts: frame number}) of each stretch, in file order.
        """
        key_pts = [self.pts[k] for k in self.keys]
        runs: list[tuple[int, int, dict[int, int]]] = []
        for index in indices:
            packet = self.frames[index]
            place = bisect_right(key_pts, self.pts[packet]) - 1 - earlier
            start, stop, wanted = self.keys[place] if place >= 0 else 0, packet, {}
            if runs and start <= runs[-1][1] + 1:  # goes on where the last one ends
                start, last, wanted = runs.pop()
                stop = max(last, packet)
            wanted[self.pts[packet]] = index
            runs.append((start, stop, wanted))
        return runs


class PyAVReader(VideoReader):
    """PyAV with its bundled FFmpeg.

    Attributes: decoded_frames, pictures decoded so far, wanted or not.
    """

    module = "av"
    remedy = "pip install av"

    def __init__(self, path: str):
        super().__init__(path)
        self.decoded_frames = 0
        self._size: tuple[int, int] | None = None  # (W, H) of the first picture: some files change theirs
        self._av = self.load()
        self._errors = self._av.error.FFmpegError
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        try:
            self._open()
            self._table = _PacketTable.read(
                self._packets(),
                may_mistime=self._container.format.name == "avi" and self._context.has_b_frames,
            )
            self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        except self._errors as error:
            raise BadVideoError(
                f"{path}: not a video that can be opened ({error.strerror}; tried pyav)"
            ) from error
        self._count_frames()

    def _open(self) -> None:
        self._container = self._av.open(self.path)
        self._stream = self._container.streams.best("video")  # not the first: it may be a preview
        cover = self._av.stream.Disposition.attached_pic
        if self._stream is None or self._stream.disposition & cover:
            raise BadVideoError(f"{self.path}: no video stream (tried pyav)")
        for stream in self._container.streams:
            if stream is not self._stream:
                stream.discard = self._av.stream.Discard.all
        self._context = self._stream.codec_context
        self._context.thread_type = "AUTO"
        self._context.thread_count = DECODER_THREADS

    def _count_frames(self) -> None:
        """Number the frames; those a file's index lists beyond its end count, as undecodable."""
        self.total_frames = found = len(self._table.frames)
        lost = len(self._stream.index_entries) - len(self._table.pts)
        if lost > 0:
            self.total_frames = found + lost
            self.problems.append(f"{self.path}: cut off, {found} of its {self.total_frames} frames are there")

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def _packets(self) -> Iterator:
        """The stream's packets from the current place on; a break in the file ends them."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        except self._errors as error:
            problem = f"{self.path}: broken off ({error.strerror})"
            if problem not in self.problems:
                self.problems.append(problem)

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """See `VideoReader.decode`."""
        indices = [i for i in indices if i < len(self._table.frames)]
        if not self._table.seekable:
            yield from self._decode_in_order(set(indices))
            return
        # Pictures that no other refers to are skipped unless wanted. A decoder that has to guess the
        # order can lose a wanted one by that, and some "key" pictures only lead to whole ones after a
        # while: what did not come is tried again, decoding everything from the key picture before.
        for earlier, skip in ((0, "NONREF"), (1, "DEFAULT")):
            missing = []
            for start, stop, wanted in self._table.runs(indices, earlier=earlier):
                for frame in self._decode_run(start, stop, wanted, skip):
                    yield self._picture(wanted.pop(frame.pts), frame)
                missing += wanted.values()
            indices = missing

    def _decode_run(self, start: int, stop: int, wanted: dict[int, int], skip: str) -> Iterator:
        """Pictures of the packets `start` to `stop` whose pts is (still) in `wanted`."""
        targets = set(wanted)
        for number, packet in self._packets_from(start):
            self._context.skip_frame = "DEFAULT" if packet.pts in targets else skip
            yield from (frame for frame in self._decode_packet(packet) if frame.pts in wanted)
            if number >= stop or not wanted:
                break
        if wanted:
            yield from (frame for frame in self._decode_packet(None) if frame.pts in wanted)

    def _decode_in_order(self, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode from the start and count, for files without usable times."""
        self._reopen()
        number = 0
        for packet in chain(self._packets(), [None]):
            for frame in self._decode_packet(packet):
                if number in wanted:
                    yield self._picture(number, frame)
                number += 1

    def _decode_packet(self, packet) -> list:
        """The pictures a packet brings forth (None: those still held back); none if it is broken."""
        try:
            frames = self._context.decode(packet)
        except self._errors:
            return []
        self.decoded_frames += len(frames)
        return frames

    def _packets_from(self, start: int) -> Iterator[tuple[int, object]]:
        """Numbered packets from `start` on: seek there, or else read from the file's start."""
        dts, pts = self._table.dts[start], self._table.pts[start]
        try:
            self._container.seek(pts if dts is None else dts, stream=self._stream)
        except self._errors:
            self._reopen()
        packets = self._numbered()
        first = next(packets, None)
        if first is None or first[0] > start:
            self._reopen()
            packets = self._numbered()
        elif first[0] == start:
            yield first
        yield from (item for item in packets if item[0] >= start)

    def _numbered(self) -> Iterator[tuple[int, object]]:
        """The packets from the current place on with their numbers, those recognised."""
        keyed = (((packet.pts, packet.size), packet) for packet in self._packets())
        return ((self._table.numbers[key], packet) for key, packet in keyed if key in self._table.numbers)

    def _reopen(self) -> None:
        self._container.close()
        self._open()

    def _picture(self, number: int, frame) -> tuple[int, np.ndarray]:
        """The frame's number and its RGB picture (H, W, 3), turned as the metadata says."""
        if frame.is_corrupt:
            self.concealed.add(number)
        self._size = self._size or (frame.width, frame.height)
        if frame.interlaced_frame:
            frame = self._progressive(frame)
        width, height = self._size
        # Unless told, PyAV starts as many threads as there are cores for the conversion of each picture.
        rgb = self._reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        turns = round(frame.rotation / 90)  # counter-clockwise
        return number, np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb

    def _progressive(self, frame):
        """The same picture without its interlaced mark, which changes the colour conversion.

        The frames that published checkpoints were trained on were converted as progressive ones.
        """
        graph = self._av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._stream.time_base
        )
        graph.link_nodes(source, graph.add("setfield", "mode=prog"), graph.add("buffersink")).configure()
        graph.push(frame)
        return graph.pull()


class DecordReader(VideoReader):
    """decord: x86-64 only and no longer maintained; it cannot read AV1 and gets 10-bit colours wrong.

    It stops at the first undecodable frame, so such a file is refused. Where groups of pictures are open
    or keep their order in other ways than H.264's usual (some HEVC), it counts wrongly after seeking and
    gives frames nearby; the original system, which used it, saw those.
    """

    module = "decord"
    remedy = "pip install 'videomind[decord]'"

    def __init__(self, path: str):
        super().__init__(path)
        decord = self.load()
        self._errors = (decord.DECORDError, RuntimeError)
        try:
            self._video = decord.VideoReader(path, num_threads=DECODER_THREADS)
        except self._errors as error:
            raise BadVideoError(f"{path}: cannot be opened (tried decord)") from error
        self.total_frames = len(self._video)
        self.fps = float(self._video.get_avg_fps())

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """See `VideoReader.decode`."""
        for first in range(0, len(indices), DECORD_BATCH):
            part = list(indices[first : first + DECORD_BATCH])
            try:
                frames = self._video.get_batch(part).asnumpy()
            except self._errors as error:
                place = f"undecodable near frames {part[0]} to {part[-1]}"
                raise BadVideoError(
                    f"{self.path}: {place} (tried decord; pyav can read around it)"
                ) from error
            yield from zip(part, frames, strict=True)


class TorchCodecReader(VideoReader):
    """torchcodec, on the CPU; needs FFmpeg installed on the system."""

    module = "torchcodec"
    remedy = "pip install 'videomind[torchcodec]', and install FFmpeg"

    @classmethod
    def load(cls) -> ModuleType:
        """See `VideoReader.load`."""
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
        """See `VideoReader.decode`."""
        for index in indices:
            try:
                frame = self._video.get_frame_at(index)
            except RuntimeError:  # undecodable
                continue
            yield index, frame.data.numpy()


class GifReader(VideoReader):
    """A .gif, by PIL. Its own timing is ignored: `fps` is the caller's (that of the visual budget)."""

    def __init__(self, path: str, fps: float):
        super().__init__(path)
        self.fps = fps
        try:
            self._image = Image.open(path)
            self.total_frames = getattr(self._image, "n_frames", 1)
        except IMAGE_ERRORS as error:
            raise BadVideoError(f"{path}: not an image that can be opened (tried PIL)") from error

    def close(self) -> None:
        """Release the file."""
        self._image.close()

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """See `VideoReader.decode`."""
        for index in indices:
            try:
                self._image.seek(index)
                frame = np.array(self._image.convert("RGB"))
            except IMAGE_ERRORS:
                continue
            yield index, frame


READERS: dict[str, type[VideoReader]] = {
    "pyav": PyAVReader,
    "decord": DecordReader,
    "torchcodec": TorchCodecReader,
}


def choose_reader(name: str | None = None) -> type[VideoReader]:
    """The class of a reader by name.

    Args: name (None: the variable VIDEOMIND_VIDEO_READER, else `pyav`).
    Raises: ValueError for an unknown name or one that cannot be loaded here.
    """
    origin = "reader" if name else READER_VARIABLE
    name = name or os.environ.get(READER_VARIABLE) or DEFAULT_READER
    if name not in READERS:
        raise ValueError(f"Unknown video reader {name!r} ({origin}). {nearest(name, READERS)}")
    reader = READERS[name]
    try:
        reader.load()
    except (ImportError, RuntimeError, OSError) as error:  # the latter two: a missing system library
        raise ValueError(
            f"The video reader {name!r} ({origin}) cannot be loaded here ({error}): {reader.remedy}. "
            f"Allowed: {', '.join(READERS)}"
        ) from error
    return reader


def open_reader(path: str | os.PathLike, name: str | None = None, *, gif_fps: float = 1.0) -> VideoReader:
    """Open a video file.

    Args: path; name, see `choose_reader`; gif_fps, the frame rate a .gif is taken to have.
    Raises: BadVideoError when it is no usable video, ValueError for a reader that is not there.
    """
    reader = choose_reader(name)
    path = os.fspath(path)
    if os.path.isdir(path):
        raise BadVideoError(f"{path}: a folder, not a video")
    if not os.path.exists(path):
        raise BadVideoError(f"{path}: no such file")
    if os.path.getsize(path) == 0:
        raise BadVideoError(f"{path}: an empty file")
    video = GifReader(path, gif_fps) if path.lower().endswith(".gif") else reader(path)
    if video.total_frames < 1 or not video.fps > 0:
        video.close()
        raise BadVideoError(f"{path}: {video.total_frames} frames at {video.fps} per second")
    return video
