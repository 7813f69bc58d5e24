"""The default reader: PyAV, decoding only the groups of pictures that hold wanted frames."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np

from videomind.faults import ends_run
from videomind.video.reader import DECODER_THREADS, BadVideoError, VideoReader


@dataclass(frozen=True)
class _Run:
    """A stretch of packets that is decoded in one go.

    Attributes:
        first: number of its first packet, from which decoding can start.
        last: number of the last packet that is needed.
        wanted: presentation time to frame number, of the frames that are asked for.
    """

    first: int
    last: int
    wanted: dict[int, int]


@dataclass(frozen=True)
class _PacketTable:
    """Where each frame is, found by reading all packets of a stream once without decoding any.

    Attributes:
        pts: presentation time of each packet, in the file's (decoding) order.
        dts: decoding time of each packet.
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
        """Build the table.

        Args:
            packets: all of the stream.
            may_mistime: whether pts may be no more than a counter.
        """
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

    def runs(self, indices: Sequence[int], *, earlier: int) -> list[_Run]:
        """Find the stretches of packets to decode for some frames; whole groups between are passed over.

        A frame needs everything from the last key picture shown before it, which is also right for the
        leading pictures of an open group: those come after the next key picture in the file.

        Args:
            indices: increasing frame numbers.
            earlier: by how many key pictures to start too soon.

        Returns:
            The stretches in the file's order.
        """
        key_pts = [self.pts[k] for k in self.keys]
        runs: list[_Run] = []
        for index in indices:
            packet = self.frames[index]
            place = bisect_right(key_pts, self.pts[packet]) - 1 - earlier
            first, last, wanted = self.keys[place] if place >= 0 else 0, packet, {}
            if runs and first <= runs[-1].last + 1:  # goes on where the last one ends
                before = runs.pop()
                first, last, wanted = before.first, max(before.last, packet), before.wanted
            runs.append(_Run(first, last, {**wanted, self.pts[packet]: index}))
        return runs


class PyAVReader(VideoReader):
    """PyAV with its bundled FFmpeg.

    Attributes:
        decoded_frames: pictures decoded so far, wanted or not.
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
        # Titles and the like need not be UTF-8; nobody reads them.
        self._container = self._av.open(self.path, metadata_errors="replace")
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
        self._container.close()

    @contextmanager
    def _damage(self) -> Iterator[list[str]]:
        """Take FFmpeg's errors for damage of the file, and say what they were; the machine's go on."""
        said: list[str] = []
        try:
            yield said
        except self._errors as error:
            if ends_run(error):
                raise
            said.append(error.strerror or type(error).__name__)

    def _packets(self) -> Iterator:
        """Demux the stream's packets from the current place on; a break in the file ends them."""
        with self._damage() as said:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield packet
        for words in said:
            problem = f"{self.path}: broken off ({words})"
            if problem not in self.problems:
                self.problems.append(problem)

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        missing = [i for i in indices if i < len(self._table.frames)]
        if not self._table.seekable:
            yield from self._shown(self._decode_in_order(set(missing)))
            return
        # Pictures that no other refers to are skipped unless wanted. A decoder that has to guess the
        # order can lose a wanted one by that, and some "key" pictures only lead to whole ones after a
        # while: what did not come is tried again, decoding everything from the key picture before.
        for earlier, skip in ((0, "NONREF"), (1, "DEFAULT")):
            came = set()
            for run in self._table.runs(missing, earlier=earlier):
                for number, picture in self._shown(self._decode_run(run, skip)):
                    came.add(number)
                    yield number, picture
            missing = [i for i in missing if i not in came]

    def _decode_run(self, run: _Run, skip: str) -> Iterator[tuple[int, object]]:
        """Decode a stretch of packets.

        Yields:
            The wanted frames that came, with their numbers.
        """
        waiting = dict(run.wanted)  # pts -> frame number; what has not come yet

        def arrived(frames: Iterable) -> list[tuple[int, object]]:
            return [(waiting.pop(frame.pts), frame) for frame in frames if frame.pts in waiting]

        for number, packet in self._packets_from(run.first):
            self._context.skip_frame = "DEFAULT" if packet.pts in run.wanted else skip
            yield from arrived(self._decode_packet(packet))
            if number >= run.last or not waiting:
                break
        if waiting:
            yield from arrived(self._decode_packet(None))  # frames that the decoder still holds back

    def _decode_in_order(self, wanted: set[int]) -> Iterator[tuple[int, object]]:
        """Decode from the start and count, for files without usable times."""
        self._reopen()
        number = 0
        for packet in chain(self._packets(), [None]):
            for frame in self._decode_packet(packet):
                if number in wanted:
                    yield number, frame
                number += 1

    def _decode_packet(self, packet) -> list:
        """Give the frames a packet brings forth (None: those still held back); none if it is broken."""
        frames = []
        with self._damage():
            frames = self._context.decode(packet)
        self.decoded_frames += len(frames)
        return frames

    def _packets_from(self, start: int) -> Iterator[tuple[int, object]]:
        """Yield numbered packets from `start` on: seek there, or else read from the file's start."""
        dts, pts = self._table.dts[start], self._table.pts[start]
        with self._damage() as said:
            self._container.seek(pts if dts is None else dts, stream=self._stream)
        if said:
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
        """Number the packets from the current place on, those recognised."""
        keyed = (((packet.pts, packet.size), packet) for packet in self._packets())
        return ((self._table.numbers[key], packet) for key, packet in keyed if key in self._table.numbers)

    def _reopen(self) -> None:
        self._container.close()
        self._open()

    def _shown(self, frames: Iterable[tuple[int, object]]) -> Iterator[tuple[int, np.ndarray]]:
        """Convert decoded frames to pictures; one that cannot be converted is one that cannot be decoded."""
        for number, frame in frames:
            with self._damage() as said:
                yield number, self._picture(frame)
            if said:
                self.reasons[number] = f"it cannot be converted ({said[0]})"
            elif frame.is_corrupt:
                self.concealed.add(number)

    def _picture(self, frame) -> np.ndarray:
        """Convert a frame to its RGB picture (H, W, 3), turned as the metadata says."""
        self._size = self._size or (frame.width, frame.height)
        if frame.interlaced_frame:
            frame = self._progressive(frame)
        width, height = self._size
        # Unless told, PyAV starts as many threads as there are cores for the conversion of each picture.
        rgb = self._reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        turns = round(frame.rotation / 90)  # counter-clockwise
        return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb

    def _progressive(self, frame):
        """Copy a frame without its interlaced mark, which changes the colour conversion.

        The frames that published checkpoints were trained on were converted as progressive ones.
        """
        graph = self._av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._stream.time_base
        )
        graph.link_nodes(source, graph.add("setfield", "mode=prog"), graph.add("buffersink")).configure()
        graph.push(frame)
        return graph.pull()
