"""The default reader: PyAV, decoding only the groups of pictures that hold wanted frames.

Where packets do not tell which pictures they show, or where decoding can start, the file is decoded once to
count them and is read in order: then each frame is what a player shows, at the cost of that time.
"""

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain

import av
import numpy as np

from videomind.video.bitstream import HEVC, Content, Inspector, inspector
from videomind.video.clock import clock_of, continued, counted_clock, gaps, usual_step
from videomind.video.counting import Shown, Watch
from videomind.video.packets import PacketTable, Stretch
from videomind.video.pictures import Pictures
from videomind.video.reader import DECODER_THREADS, Remembered, VideoReader
from videomind.video.stream import VideoStream

# Containers whose length is guessed from their times.
_LENGTH_IS_GUESSED = frozenset(("mpegts", "mpegtsraw", "mpeg", "mpegvideo", "h264", "hevc", "m4v"))
_END_IS_UNKNOWN = _LENGTH_IS_GUESSED | {"nut"}  # may be cut off within a picture and not say so
_LOSES_NO_PICTURE = frozenset(("mov", "mp4"))  # one index lists all
_CODECS = {"libdav1d": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}  # decoders by another name
_HEADER_OFF_S, _HEADER_OFF = 1.0, 0.05  # by how much a header's length may differ from what is there
_PAUSE_S = 1.0  # a step in time that need not be a loss
_OVERHEAD = 1024  # bytes of a container between two packets, at most
_COUNTS: Remembered[Shown] = Remembered(64)  # files
# Packets of all tables, 0.3 kB each.
_TABLES: Remembered[tuple[PacketTable, list[str]]] = Remembered(200_000, lambda kept: len(kept[0].pts))


def _stands_alone(data: bytes, is_key: bool) -> Content:
    """Name what a packet holds where each is one whole picture."""
    return Content(1, True)


class PyAVReader(VideoReader):
    """PyAV with its bundled FFmpeg."""

    module = "av"
    remedy = "pip install av"

    def __init__(self, path: str):
        super().__init__(path)
        self._file = VideoStream(path, self.problems)
        with ExitStack() as refused:  # a file that is refused is closed at once
            refused.callback(self.close)
            self._converter = Pictures(self._file)
            self._find_frames()
            self._set_clock()
            self._compare_lengths()
            refused.pop_all()

    def close(self) -> None:
        self._file.close()

    @property
    def decoded_frames(self) -> int:
        """Pictures decoded so far, asked for or not."""
        return self._file.decoded_frames

    @property
    def pixel_aspect(self) -> float:
        """Width of a pixel as the last picture shows it, for its height."""
        return self._converter.pixel_aspect

    # Which frames there are, and when.

    def _find_frames(self) -> None:
        """Number the frames; those a file's index lists beyond its end count, as undecodable."""
        codec = _CODECS.get(self._file.context.name, self._file.context.name)
        inspect = inspector(codec, self._file.context.extradata)
        if inspect is None and self._all_stand_alone():
            inspect = _stands_alone
        if "avi" in self._file.formats and self._file.context.has_b_frames:
            inspect = None  # its presentation times may be no more than a counter
        # Elsewhere a picture that no other shows may still change how later ones are decoded.
        is_flat = isinstance(inspect, HEVC) and inspect.is_flat
        self._skip = "NONREF" if codec == "h264" or is_flat else "DEFAULT"
        self._table = table = self._read_table(codec, inspect)
        known = [time for time in table.dts if time is not None]
        starts_again = any(b < a for a, b in zip(known, known[1:], strict=False))
        can_seek = inspect is not None and table.is_unique and not table.keeps_state and not starts_again
        self._shown: Shown | None = None
        if not (can_seek and table.is_told):
            self._shown = _COUNTS.take(self._file.identity, self._count)
            if can_seek and self._shown.is_within(table.pts):
                table.show(self._shown.pts)
            else:
                can_seek = False
            self._tell_of_counting(self._shown, can_seek)
        self._can_seek = can_seek
        self._is_careful = self._file.is_careful
        self._is_astray = False
        self._found = len(self._shown.pts if self._shown else table.frames)
        lost = max(0, len(self._file.stream.index_entries) - len(table.pts))
        self.total_frames = self._found + lost
        if lost:
            self._file.note(f"cut off, {self._found} of its {self.total_frames} frames are there")

    def _read_table(self, codec: str, inspect: Inspector | None) -> PacketTable:
        """Read the table of packets; that of a file which was read just before is taken over."""

        def read() -> tuple[PacketTable, list[str]]:
            before = len(self.problems)
            table = PacketTable.read(self._file.packets(), codec=codec, inspect=inspect)
            return table, self.problems[before:]

        table, problems = _TABLES.take((self.path, self._file.identity), read)
        self.problems += [problem for problem in problems if problem not in self.problems]
        return table.copy()

    def _tell_of_counting(self, shown: Shown, can_seek: bool) -> None:
        """Say what went wrong while the frames were counted."""
        if shown.skipped_at_start:
            self._file.note(f"begins within a group, {shown.skipped_at_start} pictures cannot be shown")
        if shown.failed[0]:
            self._file.note("{} of its packets cannot be decoded ({})".format(*shown.failed))
        if self._table.damaged and not can_seek:
            self._file.note(f"{len(self._table.damaged)} of its packets are damaged")

    def _all_stand_alone(self) -> bool:
        """Tell whether every packet is a whole picture, also after seeking."""
        if not self._file.context.codec.intra_only or self._file.context.pix_fmt == "pal8":
            return False  # a palette comes once, at the start
        pictures = []
        for _ in range(2):
            with self._file.damage():
                packet = next(self._file.packets(), None)
                pictures.append([bytes(p) for f in self._file.context.decode(packet) for p in f.planes])
                pictures[-1] += [bytes(p) for f in self._file.context.decode(None) for p in f.planes]
                self._file.container.seek(0, stream=self._file.stream)
        self._file.reopen()
        return len(pictures) == 2 and bool(pictures[0]) and pictures[0] == pictures[1]

    def _count(self) -> Shown:
        """Decode the whole file in order, to tell which pictures it shows."""
        self._file.is_careful |= bool(self._file.formats & _LENGTH_IS_GUESSED)
        while True:
            self._file.reopen()
            watch = Watch()
            for packet in chain(self._file.packets(), [None]):
                frames, error = self._file.decode(packet)
                watch.see(packet, frames, error)
            shown = watch.shown()
            if self._file.is_careful or not (shown.concealed or shown.failed[0]):
                return shown
            self._file.is_careful = True

    def _set_clock(self) -> None:
        """Tell when each frame is shown."""
        tick = float(self._file.stream.time_base or 0)
        header = self._file.stream.average_rate or self._file.stream.guessed_rate
        rates = [header, self._file.stream.guessed_rate, self._file.stream.base_rate]
        lost = self.total_frames - self._found
        stamps = self._stamps()
        if stamps is None or not self._found:
            if self._table.last_duration:
                rates.insert(0, 1 / (self._table.last_duration * tick))
            self.clock = counted_clock(self.total_frames, float(next(filter(None, rates), 0)))
        else:
            stamps = [None if stamp is None else stamp * tick for stamp in stamps]
            step = usual_step([stamp for stamp in stamps if stamp is not None])
            believes = not self._file.formats & _LENGTH_IS_GUESSED
            times, breaks = continued(stamps, step=step, believes_jumps=believes)
            if breaks:
                moments = f"at {times[breaks[0]] - times[0]:.1f} s" + (" and later" if breaks[1:] else "")
                self._file.note(f"its times start again {moments}, they are taken to go on")
            self.clock = clock_of(
                times,
                start_s=times[0] if breaks else min([times[0], *self._stream_starts()]),
                # Where pictures are not in the order shown, a packet's duration is not its picture's.
                last_s=0.0 if self._file.context.has_b_frames else self._table.last_duration * tick,
                rates=rates,
                lost=lost,
            )
            self._note_gaps(set(breaks))
        self.fps = self.total_frames / self.clock.duration_s if self.clock.times else self.clock.fps

    def _stamps(self) -> list[int | None] | None:
        """Read the times of the frames in the order shown, in ticks of the stream; None if there are none."""
        if self._can_seek:
            return [self._table.pts[number] for number in self._table.frames]
        for stamps in (self._shown.pts, self._shown.dts):
            known = [stamp for stamp in stamps if stamp is not None]
            falls = sum(b <= a for a, b in zip(known, known[1:], strict=False))
            if known and falls <= len(known) // 10:  # joined recordings start again now and then
                return stamps
        return None

    def _stream_starts(self) -> list[float]:
        """Find when each stream of sound or pictures begins, s."""
        streams = (s for s in self._file.container.streams if s.type in ("audio", "video"))
        return [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]

    def _note_gaps(self, breaks: set[int]) -> None:
        """Note where pictures are missing: there, and in pictures that need them."""
        times = self.clock.times
        if times is None:
            return
        if times[0] > 0:
            self.gaps.append((0.0, times[0]))
        loses = not self._file.formats & _LOSES_NO_PICTURE
        for frame in gaps(times[: self._found], loses_pictures=loses):
            self.gaps.append((times[frame - 1], times[frame]))
            if self._can_seek and loses and frame not in breaks:
                after = min(self._table.frames[frame : frame + 4])
                is_pause = times[frame] - times[frame - 1] >= _PAUSE_S
                if not is_pause or self._may_lack_bytes(after):
                    self._table.damaged.add(after)

    def _may_lack_bytes(self, packet: int) -> bool:
        """Tell whether something may have stood between a packet and the one before it."""
        hole = self._table.hole_before(packet)
        return hole is None or hole > _OVERHEAD or len(self._file.container.streams) > 1

    def _compare_lengths(self) -> None:
        """Compare the length that the header states with the length of what is there."""
        if self._file.formats & _LENGTH_IS_GUESSED or self.total_frames > self._found:
            return
        stream, container = self._file.stream, self._file.container
        stated = [] if stream.duration is None else [float(stream.duration * stream.time_base)]
        stated += [] if container.duration is None else [container.duration / av.time_base]
        there = self.clock.duration_s
        if not stated or min(stated) < there or _is_near(min(stated), there):
            return  # a header that says less is an old one, nothing is lost
        if _is_near(min(stated), self._end_of_all()):
            return  # the sound is longer
        self._file.note(f"its header says {min(stated):.1f} s, {there:.1f} s are there")

    def _end_of_all(self) -> float:
        """Find when the last packet of any stream ends, s from the video's first."""
        ends = [0.0]
        container = self._file.opened()
        with container, self._file.damage():
            for packet in self._file.demuxed(container):
                if packet.pts is not None:
                    ends.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
        return max(ends) - min(self._stream_starts(), default=0.0)

    # Decoding.

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        missing = [i for i in indices if i < self._found]
        if self._can_seek:
            # Pictures that no other refers to are skipped unless wanted. A decoder that has to guess the
            # order can lose a wanted one by that: what did not come is tried again from a start before.
            for earlier, skip in ((0, self._skip), (1, "DEFAULT")):
                came = set()
                for run, is_end in self._runs(missing, earlier):
                    for number, picture in self._pictures(self._decode_carefully(run, skip, is_end)):
                        came.add(number)
                        yield number, picture
                missing = [i for i in missing if i not in came]
        if missing and (not self._can_seek or self._is_astray):
            yield from self._pictures(self._decode_in_order(set(missing)))
        self._file.check_identity()

    def _pictures(self, frames: Iterable[tuple[int, av.VideoFrame]]) -> Iterator[tuple[int, np.ndarray]]:
        """Convert decoded frames; one that cannot be converted is one that cannot be decoded."""
        for number, frame in frames:
            with self._file.damage() as said:
                picture = self._converter.convert(frame)
            if said:
                self.reasons[number] = f"it cannot be converted ({said[0]})"
                continue
            if frame.is_corrupt:
                self.concealed.add(number)
            if (size := (frame.width, frame.height)) != self._converter.size:
                self.resized[number] = size
            yield number, picture

    def _runs(self, numbers: Sequence[int], earlier: int) -> Iterator[tuple[Stretch, bool]]:
        """Find the stretches to decode, and whether each may meet an end that is cut off: those come last."""
        end = math.inf
        if self._table.starts and self._file.formats & _END_IS_UNKNOWN:
            end = self._table.starts[-1]
        for is_end in (False, True):
            part = [i for i in numbers if (self._table.frames[i] >= end) == is_end]
            for run in self._table.runs(part, earlier=earlier):
                yield run, is_end

    def _decode_carefully(self, run: Stretch, skip: str, is_end: bool) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode a stretch of packets; once more if it shows damage. What comes last counts."""
        self._file.take_care(self._is_careful or is_end)
        is_damaged = yield from self._decode_run(run, skip)
        if is_damaged and not self._file.is_careful:
            self._file.take_care(True)
            yield from self._decode_run(run, skip)
        self._is_careful |= is_damaged

    def _decode_run(self, run: Stretch, skip: str) -> Generator[tuple[int, av.VideoFrame], None, bool]:
        """Decode a stretch of packets.

        Yields:
            The wanted frames that came, with their numbers.

        Returns:
            Whether it shows damage.
        """
        waiting = dict(run.frame_at)  # pts -> frame number; what has not come yet
        came: set[int] = set()
        failed: list[int] = []  # packets with which the decoder said that something is wrong
        broken: set[int] = set()  # packets whose pictures are damaged

        def arrived(number: int, packet: av.Packet | None) -> list[tuple[int, av.VideoFrame]]:
            frames, error = self._file.decode(packet)
            if error is not None:
                failed.append(number)
            came.update(frame.pts for frame in frames)
            broken.update(self._table.number_at[frame.pts] for frame in frames if frame.is_corrupt)
            return [(waiting.pop(frame.pts), frame) for frame in frames if frame.pts in waiting]

        number = run.first
        for number, packet in self._packets_from(run.first):
            if self._skip != "DEFAULT":
                self._file.context.skip_frame = "DEFAULT" if packet.pts in run.frame_at else skip
            yield from arrived(number, packet)
            if number >= run.last or not waiting:
                break
        # None: what the decoder still holds back, wanted or not: it may be damaged and a wanted one need it.
        for packet in (*self._file.pauses(), None):
            yield from arrived(number, packet)
        for number in failed:  # threads tell it some packets late
            late = range(max(run.first, number - DECODER_THREADS), number + 1)
            broken.add(next((i for i in late if self._table.pts[i] not in came), number))
        self._doubt(run, broken)
        return bool(broken)

    def _doubt(self, run: Stretch, broken: set[int]) -> None:
        """Note which wanted frames of a stretch may show its damage."""
        broken = broken | self._table.damaged
        for frame in run.frame_at.values() if broken else ():
            if self._table.depends_on(self._table.frames[frame], broken):
                self.doubtful.add(frame)

    def _decode_in_order(self, numbers: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode from the start as a player does. Yields the wanted frames with their numbers."""
        self._file.reopen()
        waiting = set(numbers)
        by_time = {self._table.pts[p]: i for i, p in enumerate(self._table.frames)} if self._can_seek else {}
        shown_before = 0
        if not self._can_seek:
            self.doubtful |= self._shown.doubtful & numbers
        for packet in chain(self._file.packets(), [None]):
            for frame in self._file.decode(packet)[0]:
                number = by_time.get(frame.pts) if self._can_seek else shown_before
                shown_before += 1
                if number in waiting:
                    waiting.discard(number)
                    yield number, frame
            if not waiting:
                break

    def _packets_from(self, start: int) -> Iterator[tuple[int, av.Packet]]:
        """Numbered packets from `start` on: seek there, or else read from the file's start.

        They end where one does not follow the other, as a container without an index may give them.
        """
        dts, pts = self._table.dts[start], self._table.pts[start]
        with self._file.damage() as said:
            self._file.container.seek(pts if dts is None else dts, stream=self._file.stream)
        if said:
            self._file.reopen()
        packets = self._numbered()
        first = next(packets, None)
        if first is None or first[0] > start:
            self._file.reopen()
            packets = self._numbered()
        elif first[0] == start:
            packets = chain([first], packets)
        expected = start
        for number, packet in packets:
            if number < start:
                continue
            if number != expected:
                self._is_astray = True
                return
            yield number, packet
            expected += 1

    def _numbered(self) -> Iterator[tuple[int, av.Packet]]:
        """Number the packets from the current place on, those recognised."""
        keyed = (((packet.pts, packet.size), packet) for packet in self._file.packets())
        return ((self._table.numbers[key], packet) for key, packet in keyed if key in self._table.numbers)


def _is_near(length: float, there: float) -> bool:
    return abs(length - there) <= min(_HEADER_OFF_S, max(_HEADER_OFF * there, 0.1))
