"""The default reader: PyAV, decoding only the groups of pictures that hold wanted frames.

Where packets do not tell which pictures they show, or where decoding can start, the file is decoded once to
count them and is read in order: then each frame is what a player shows, at the cost of that time.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

import numpy as np

from videomind.faults import ends_run
from videomind.video.bitstream import HEVC, Content, inspector
from videomind.video.clock import clock_of, continued, counted_clock, gaps, usual_step
from videomind.video.counting import Shown, Watch, remembered
from videomind.video.orientation import quarter_turns, turned
from videomind.video.packets import PacketTable, Stretch
from videomind.video.reader import DECODER_THREADS, BadVideoError, VideoReader, file_identity

# What reads no video, or reads other files than the one it is given.
_REFUSED_FORMATS = frozenset(
    ("tty", "concat", "hls", "dash", "imf", "sdp", "rtsp", "rtp", "lavfi", "image2", "ffmetadata")
)
_LENGTH_IS_GUESSED = frozenset(
    ("mpegts", "mpegtsraw", "mpeg", "mpegvideo", "h264", "hevc", "m4v")
)  # from its times
_LOSES_NO_PICTURE = frozenset(("mov", "mp4"))  # one index lists all
_CODECS = {"libdav1d": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}  # decoders by another name
# HEVC's frame threads wait for each other for ever where a certain bit is wrong; VP8's, and one alone, do not
# say that a picture ended too early.
_BY_SLICES = frozenset(("hevc", "vp8"))
_HEADER_OFF_S, _HEADER_OFF = 1.0, 0.05  # by how much a header's length may differ from what is there
_PAUSE_S = 1.0  # a step in time that need not be a loss
_OVERHEAD = 1024  # bytes of a container between two packets, at most
_LARGE_PACKET = 1 << 26  # bytes
_DELIMITER = b"\x09\xf0"  # H.264's access unit delimiter
_DISPLAY_MATRIX = "DISPLAYMATRIX"


def _stands_alone(data: bytes, is_key: bool) -> Content:
    """Name what a packet holds where each is one whole picture."""
    return Content(1, True)


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
        self._av = self.load()
        self._errors = self._av.error.FFmpegError
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._identity = file_identity(path)
        self._container = None
        self._is_size_sure = False
        # Threads can lose the word of a damaged picture: what shows any damage is decoded again by one.
        self._is_careful = False
        self._open()
        with ExitStack() as refused:  # a file that is refused is closed at once
            refused.callback(self.close)
            self._size = self._context.width, self._context.height
            self._find_frames()
            self._set_clock()
            self._compare_lengths()
            refused.pop_all()

    def _open(self) -> None:
        """Open the file at its best video stream, with a fresh decoder.

        Raises:
            BadVideoError: it has none that can be decoded, or is another file than before.
        """
        self._check_identity()
        container = self._opened()
        try:
            if wrong := _REFUSED_FORMATS.intersection(container.format.name.split(",")):
                raise BadVideoError(f"{self.path}: not a video but a file of {min(wrong)} (tried pyav)")
            stream = container.streams.best("video")  # not the first: it may be a preview
            cover = self._av.stream.Disposition.attached_pic
            if stream is None or stream.disposition & cover:
                raise BadVideoError(f"{self.path}: no video stream (tried pyav)")
            context = stream.codec_context
            if context is None:
                raise BadVideoError(f"{self.path}: nothing decodes its video stream (tried pyav)")
        except BadVideoError:
            container.close()
            raise
        for other in container.streams:
            if other is not stream:
                other.discard = self._av.stream.Discard.all
        context.thread_type = "SLICE" if context.name in _BY_SLICES else "AUTO"
        context.thread_count = 1 if self._is_careful and context.name != "vp8" else DECODER_THREADS
        if context.name == "ffv1":  # else it fills damaged parts from the picture before and says nothing
            context.options = {"err_detect": "crccheck+explode"}
        self._container, self._stream, self._context = container, stream, context

    def _opened(self):
        """Open the file itself.

        Raises:
            BadVideoError: FFmpeg cannot.
        """
        # Titles and the like need not be UTF-8; nobody reads them. PyAV 19 takes them as they are.
        options = {"metadata_errors": "replace"} if int(self._av.__version__.split(".")[0]) < 19 else {}
        try:
            # Else FFmpeg takes a colon in a name for a protocol.
            return self._av.open("file:" + os.path.abspath(self.path), **options)
        except self._errors as error:
            reason = f"not a video that can be opened ({error.strerror}; tried pyav)"
            raise BadVideoError(f"{self.path}: {reason}") from error

    def _reopen(self) -> None:
        self._container.close()
        self._open()

    def _check_identity(self) -> None:
        """Raises BadVideoError where the file is another than was opened first."""
        if file_identity(self.path) != self._identity:
            raise BadVideoError(f"{self.path}: it was changed or replaced while it was read")

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    def _formats(self) -> set[str]:
        return set(self._container.format.name.split(","))

    # Which frames there are, and when.

    def _find_frames(self) -> None:
        """Number the frames; those a file's index lists beyond its end count, as undecodable."""
        codec = _CODECS.get(self._context.name, self._context.name)
        inspect = inspector(codec, self._context.extradata)
        if inspect is None and self._all_stand_alone():
            inspect = _stands_alone
        if "avi" in self._formats() and self._context.has_b_frames:
            inspect = None  # its presentation times may be no more than a counter
        # Elsewhere a picture that no other shows may still change how later ones are decoded.
        is_flat = isinstance(inspect, HEVC) and inspect.is_flat
        self._skip = "NONREF" if codec == "h264" or is_flat else "DEFAULT"
        self._table = table = PacketTable.read(self._packets(), codec=codec, inspect=inspect)
        known = [time for time in table.dts if time is not None]
        starts_again = any(b < a for a, b in zip(known, known[1:], strict=False))
        can_seek = inspect is not None and table.is_unique and not table.keeps_state and not starts_again
        self._shown: Shown | None = None
        if not (can_seek and table.is_told):
            self._shown = remembered(self._identity, self._count)
            if can_seek and self._shown.is_within(table.pts):
                table.show(self._shown.pts)
            else:
                can_seek = False
            self._tell_of_counting(self._shown, can_seek)
        self._can_seek = can_seek
        self._is_astray = False
        if can_seek and self._table.starts and self._formats() & (_LENGTH_IS_GUESSED | {"nut"}):
            self._check_end()
        self._found = len(self._shown.pts if self._shown else table.frames)
        lost = max(0, len(self._stream.index_entries) - len(table.pts))
        self.total_frames = self._found + lost
        if lost:
            there = f"{self._found} of its {self.total_frames} frames are there"
            self.problems.append(f"{self.path}: cut off, {there}")

    def _tell_of_counting(self, shown: Shown, can_seek: bool) -> None:
        """Say what went wrong while the frames were counted."""
        problems = []
        if shown.skipped_at_start:
            problems.append(f"begins within a group, {shown.skipped_at_start} pictures cannot be shown")
        if shown.failed[0]:
            problems.append("{} of its packets cannot be decoded ({})".format(*shown.failed))
        if self._table.damaged and not can_seek:
            problems.append(f"{len(self._table.damaged)} of its packets are damaged")
        self.problems += [f"{self.path}: {problem}" for problem in problems]

    def _all_stand_alone(self) -> bool:
        """Tell whether every packet is a whole picture, also after seeking."""
        if not self._context.codec.intra_only or self._context.pix_fmt == "pal8":
            return False  # a palette comes once, at the start
        pictures = []
        for _ in range(2):
            with self._damage():
                packet = next(self._packets(), None)
                pictures.append([bytes(p) for f in self._context.decode(packet) for p in f.planes])
                pictures[-1] += [bytes(p) for f in self._context.decode(None) for p in f.planes]
                self._container.seek(0, stream=self._stream)
        self._reopen()
        return len(pictures) == 2 and bool(pictures[0]) and pictures[0] == pictures[1]

    def _count(self) -> Shown:
        """Decode the whole file in order, to tell which pictures it shows."""
        self._is_careful |= bool(self._formats() & _LENGTH_IS_GUESSED)
        while True:
            self._reopen()
            watch = Watch()
            for packet in chain(self._packets(), [None]):
                frames, error = self._decode_packet(packet)
                watch.see(packet, frames, error)
            shown = watch.shown()
            if self._is_careful or not (shown.concealed or shown.failed[0]):
                return shown
            self._is_careful = True

    def _check_end(self) -> None:
        """Decode the last group of a file without a stated length by one thread: it may be cut off."""
        last = len(self._table.pts) - 1
        self._is_careful, was_careful = True, self._is_careful
        self._reopen()
        first = self._table.starts[-1]
        for number, packet in chain(self._packets_from(first), [(last, None)]):
            frames, error = self._decode_packet(packet)
            broken = [self._table.number_at[frame.pts] for frame in frames if frame.is_corrupt]
            self._table.damaged.update(broken if error is None else [number, *broken])
        self._is_careful = was_careful
        self._reopen()

    def _set_clock(self) -> None:
        """Tell when each frame is shown."""
        tick = float(self._stream.time_base or 0)
        header = self._stream.average_rate or self._stream.guessed_rate
        rates = [header, self._stream.guessed_rate, self._stream.base_rate]
        lost = self.total_frames - self._found
        stamps = self._stamps()
        if stamps is None or not self._found:
            if self._table.last_duration:
                rates.insert(0, 1 / (self._table.last_duration * tick))
            self.clock = counted_clock(self.total_frames, float(next(filter(None, rates), 0)))
        else:
            stamps = [None if stamp is None else stamp * tick for stamp in stamps]
            step = usual_step([stamp for stamp in stamps if stamp is not None])
            believes = not self._formats() & _LENGTH_IS_GUESSED
            times, breaks = continued(stamps, step=step, believes_jumps=believes)
            if breaks:
                places = f"at {times[breaks[0]] - times[0]:.1f} s" + (" and later" if breaks[1:] else "")
                self.problems.append(f"{self.path}: its times start again {places}, they are taken to go on")
            self.clock = clock_of(
                times,
                start_s=times[0] if breaks else min([times[0], *self._stream_starts()]),
                # Where pictures are not in the order shown, a packet's duration is not its picture's.
                last_s=0.0 if self._context.has_b_frames else self._table.last_duration * tick,
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
        streams = (s for s in self._container.streams if s.type in ("audio", "video"))
        return [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]

    def _note_gaps(self, breaks: set[int]) -> None:
        """Note where pictures are missing: there, and in pictures that need them."""
        times = self.clock.times
        if times is None:
            return
        if times[0] > 0:
            self.gaps.append((0.0, times[0]))
        loses = not self._formats() & _LOSES_NO_PICTURE
        for frame in gaps(times[: self._found], loses_pictures=loses):
            self.gaps.append((times[frame - 1], times[frame]))
            if self._can_seek and loses and frame not in breaks:
                after = min(self._table.frames[frame : frame + 4])
                is_pause = times[frame] - times[frame - 1] >= _PAUSE_S
                if not is_pause or self._may_lack_bytes(after):
                    self._table.damaged.add(after)

    def _may_lack_bytes(self, packet: int) -> bool:
        """Tell whether something may have stood between a packet and the one before it."""
        hole = self._table.holes[packet]
        return hole is None or hole > _OVERHEAD or len(self._container.streams) > 1

    def _compare_lengths(self) -> None:
        """Compare the length that the header states with the length of what is there."""
        if self._formats() & _LENGTH_IS_GUESSED or self.total_frames > self._found:
            return
        stream, container = self._stream, self._container
        stated = [] if stream.duration is None else [float(stream.duration * stream.time_base)]
        stated += [] if container.duration is None else [container.duration / self._av.time_base]
        there = self.clock.duration_s
        if not stated or min(stated) < there or _is_near(min(stated), there):
            return  # a header that says less is an old one, nothing is lost
        if _is_near(min(stated), self._end_of_all()):
            return  # the sound is longer
        self.problems.append(f"{self.path}: its header says {min(stated):.1f} s, {there:.1f} s are there")

    def _end_of_all(self) -> float:
        """Find when the last packet of any stream ends, s from the video's first."""
        ends = [0.0]
        container = self._opened()
        with container, self._damage():
            for packet in self._demuxed(container):
                if packet.pts is not None:
                    ends.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
        return max(ends) - min(self._stream_starts(), default=0.0)

    # Decoding.

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
            yield from self._demuxed(self._container, self._stream)
        for words in said:
            problem = f"{self.path}: broken off ({words})"
            if problem not in self.problems:
                self.problems.append(problem)

    def _demuxed(self, container, *streams) -> Iterator:
        """Demux the packets of some streams, or of all.

        Raises:
            FFmpegError: the file is broken there.
        """
        said = None
        try:
            yield from (packet for packet in container.demux(*streams) if packet.size)
        except IndexError:  # at the end PyAV asks for streams too that showed up within the file
            return
        except MemoryError as error:  # a wrong length in the file asks for more than there is
            if not _has_memory():
                raise
            said = error.strerror
        if said is not None:
            raise self._av.error.InvalidDataError(errno.EINVAL, said)

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        missing = [i for i in indices if i < self._found]
        if self._can_seek:
            # Pictures that no other refers to are skipped unless wanted. A decoder that has to guess the
            # order can lose a wanted one by that: what did not come is tried again from a start before.
            for earlier, skip in ((0, self._skip), (1, "DEFAULT")):
                came = set()
                for run in self._table.runs(missing, earlier=earlier):
                    for number, picture in self._pictures(self._decode_carefully(run, skip)):
                        came.add(number)
                        yield number, picture
                missing = [i for i in missing if i not in came]
        if missing and (not self._can_seek or self._is_astray):
            yield from self._pictures(self._decode_in_order(set(missing)))
        self._check_identity()

    def _decode_carefully(self, run: Stretch, skip: str) -> Iterator[tuple[int, object]]:
        """Decode a stretch of packets; once more if it shows damage. What comes last counts."""
        was_careful = self._is_careful
        yield from self._decode_run(run, skip)
        if self._is_careful and not was_careful:
            self._reopen()
            yield from self._decode_run(run, skip)

    def _decode_run(self, run: Stretch, skip: str) -> Iterator[tuple[int, object]]:
        """Decode a stretch of packets. Yields the wanted frames that came, with their numbers."""
        waiting = dict(run.wanted)  # pts -> frame number; what has not come yet
        came: set[int] = set()
        failed: list[int] = []  # packets with which the decoder said that something is wrong
        broken: set[int] = set()  # packets whose pictures are damaged

        def arrived(number: int, packet) -> list[tuple[int, object]]:
            frames, error = self._decode_packet(packet)
            if error is not None:
                failed.append(number)
            came.update(frame.pts for frame in frames)
            broken.update(self._table.number_at[frame.pts] for frame in frames if frame.is_corrupt)
            return [(waiting.pop(frame.pts), frame) for frame in frames if frame.pts in waiting]

        number = run.first
        for number, packet in self._packets_from(run.first):
            if self._skip != "DEFAULT":
                self._context.skip_frame = "DEFAULT" if packet.pts in run.wanted else skip
            yield from arrived(number, packet)
            if number >= run.last or not waiting:
                break
        # None: what the decoder still holds back, wanted or not: it may be damaged and a wanted one need it.
        for packet in (*self._pauses(), None):
            yield from arrived(number, packet)
        for number in failed:  # threads tell it some packets late
            late = range(max(run.first, number - DECODER_THREADS), number + 1)
            broken.add(next((i for i in late if self._table.pts[i] not in came), number))
        self._is_careful |= bool(broken)
        self._doubt(run, broken)

    def _pauses(self) -> list:
        """Packets without a picture that let H.264's threads end before the decoder is emptied.

        Else a picture that one thread hands out while another is still at work on it lacks that one's word
        that it is damaged.
        """
        if self._context.name != "h264" or self._context.thread_count == 1:
            return []
        extradata = self._context.extradata or b""
        size = (extradata[4] & 3) + 1 if extradata[:1] == b"\1" and len(extradata) > 4 else 0
        before = len(_DELIMITER).to_bytes(size) if size else b"\0\0\0\1"
        self._context.skip_frame = "NONREF"  # else a packet without a picture is an error
        return [self._av.Packet(before + _DELIMITER) for _ in range(self._context.thread_count - 1)]

    def _doubt(self, run: Stretch, broken: set[int]) -> None:
        """Note which wanted frames of a stretch may show its damage."""
        broken = broken | self._table.damaged
        for frame in run.wanted.values() if broken else ():
            if self._table.depends_on(self._table.frames[frame], broken):
                self.doubtful.add(frame)

    def _decode_in_order(self, wanted: set[int]) -> Iterator[tuple[int, object]]:
        """Decode from the start as a player does. Yields the wanted frames with their numbers."""
        self._reopen()
        waiting = set(wanted)
        by_time = {self._table.pts[p]: i for i, p in enumerate(self._table.frames)} if self._can_seek else {}
        place = 0
        if not self._can_seek:
            self.doubtful |= self._shown.doubtful & wanted
        for packet in chain(self._packets(), [None]):
            for frame in self._decode_packet(packet)[0]:
                number = by_time.get(frame.pts) if self._can_seek else place
                place += 1
                if number in waiting:
                    waiting.discard(number)
                    yield number, frame
            if not waiting:
                break

    def _decode_packet(self, packet) -> tuple[list, str | None]:
        """Give the frames a packet brings forth (None: those still held back), and what is wrong with it."""
        frames = []
        with self._damage() as said:
            try:
                frames = self._context.decode(packet)
            except MemoryError as error:  # as dav1d says of broken packets
                if not _has_memory():
                    raise
                said.append(error.strerror)
        self.decoded_frames += len(frames)
        return frames, said[0] if said else None

    def _packets_from(self, start: int) -> Iterator[tuple[int, object]]:
        """Numbered packets from `start` on: seek there, or else read from the file's start.

        They end where one does not follow the other, as a container without an index may give them.
        """
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

    def _numbered(self) -> Iterator[tuple[int, object]]:
        """Number the packets from the current place on, those recognised."""
        keyed = (((packet.pts, packet.size), packet) for packet in self._packets())
        return ((self._table.numbers[key], packet) for key, packet in keyed if key in self._table.numbers)

    # Pictures.

    def _pictures(self, frames: Iterable[tuple[int, object]]) -> Iterator[tuple[int, np.ndarray]]:
        """Convert decoded frames; one that cannot be converted is one that cannot be decoded."""
        for number, frame in frames:
            with self._damage() as said:
                yield number, self._picture(number, frame)
            if said:
                self.reasons[number] = f"it cannot be converted ({said[0]})"
            elif frame.is_corrupt:
                self.concealed.add(number)

    def _picture(self, number: int, frame) -> np.ndarray:
        """Convert a frame to its RGB picture (H, W, 3), of the video's size, turned as the metadata says."""
        if (frame.width, frame.height) != self._size:
            self._make_sure_of_size()
        if (frame.width, frame.height) != self._size:
            self.resized[number] = frame.width, frame.height
        if frame.interlaced_frame:
            frame = self._progressive(frame)
        width, height = self._size
        # Unless told, PyAV starts as many threads as there are cores for the conversion of each picture.
        rgb = self._reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        matrix = frame.side_data.get(_DISPLAY_MATRIX)
        if matrix is None:
            return rgb
        if quarter_turns(bytes(matrix)) is None:
            problem = f"{self.path}: turned by {frame.rotation} degrees in its metadata, read unturned"
            self.problems += [problem] if problem not in self.problems else []
        return turned(rgb, bytes(matrix))

    def _make_sure_of_size(self) -> None:
        """Let the first picture decide on the video's size: some headers are wrong."""
        if self._is_size_sure:
            return
        self._is_size_sure = True
        container = self._opened()
        with container, self._damage():
            first = next(container.decode(container.streams[self._stream.index]), None)
            if first is not None:
                self._size = first.width, first.height

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


def _is_near(length: float, there: float) -> bool:
    return abs(length - there) <= min(_HEADER_OFF_S, max(_HEADER_OFF * there, 0.1))


def _has_memory() -> bool:
    """Tell whether the machine still gives what any packet of a whole file may need."""
    try:
        return len(bytearray(_LARGE_PACKET)) == _LARGE_PACKET
    except MemoryError:
        return False
