"""A file's video stream through PyAV: opened, demuxed and decoded, with its damage as words."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import av

from videomind.faults import ends_run
from videomind.video.reader import DECODER_THREADS, BadVideoError, file_identity

# What reads no video, or reads other files than the one it is given.
_REFUSED_FORMATS = frozenset(
    ("tty", "concat", "hls", "dash", "imf", "sdp", "rtsp", "rtp", "lavfi", "ffmetadata")
)
# HEVC's frame threads wait for each other for ever where a certain bit is wrong; VP8's, and one alone, do not
# say that a picture ended too early.
_BY_SLICES = frozenset(("hevc", "vp8"))
_LARGE_PACKET = 1 << 26  # bytes
_DELIMITER = b"\x09\xf0"  # H.264's access unit delimiter
# Titles and the like need not be UTF-8; nobody reads them. PyAV 19 takes them as they are.
_METADATA = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
_ONE_FILE = {"pattern_type": "none"}  # of image2, which a name as x%d.png is given to: read that file alone


class VideoStream:
    """The best video stream of an open file.

    Attributes:
        identity: of the file that was opened first.
        container, stream, context: PyAV's, fresh after every `reopen`.
        is_careful: whether one thread decodes. Several can lose the word of a damaged picture: what shows any
            damage is decoded again by one.
        decoded_frames: pictures decoded so far.
        problems: the reader's list, to which breaks in the file are added.
    """

    def __init__(self, path: str, problems: list[str]):
        self.path = path
        self.problems = problems
        self.decoded_frames = 0
        self.is_careful = False
        self.identity = file_identity(path)
        self._open()

    def _open(self) -> None:
        """Open the file at its best video stream, with a fresh decoder.

        Raises:
            BadVideoError: it has none that can be decoded, or is another file than before.
        """
        self.check_identity()
        container = self.opened()
        try:
            if wrong := _REFUSED_FORMATS.intersection(container.format.name.split(",")):
                raise BadVideoError(f"{self.path}: not a video but a file of {min(wrong)} (tried pyav)")
            stream = container.streams.best("video")  # not the first: it may be a preview
            if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
                raise BadVideoError(f"{self.path}: no video stream (tried pyav)")
            context = stream.codec_context
            if context is None:
                raise BadVideoError(f"{self.path}: nothing decodes its video stream (tried pyav)")
        except BadVideoError:
            container.close()
            raise
        for other in container.streams:
            if other is not stream:
                other.discard = av.stream.Discard.all
        context.thread_type = "SLICE" if context.name in _BY_SLICES else "AUTO"
        context.thread_count = 1 if self.is_careful and context.name != "vp8" else DECODER_THREADS
        if context.name == "ffv1":  # else it fills damaged parts from the picture before and says nothing
            context.options = {"err_detect": "crccheck+explode"}
        self.container, self.stream, self.context = container, stream, context

    def opened(self) -> av.container.InputContainer:
        """Open the file itself.

        Raises:
            BadVideoError: FFmpeg cannot.
        """
        try:
            # Else FFmpeg takes a colon in a name for a protocol.
            return av.open("file:" + os.path.abspath(self.path), options=_ONE_FILE, **_METADATA)
        except av.error.FFmpegError as error:
            reason = f"not a video that can be opened ({error.strerror}; tried pyav)"
            raise BadVideoError(f"{self.path}: {reason}") from error

    def reopen(self) -> None:
        """Start again at the file's begin, with a fresh decoder."""
        self.container.close()
        self._open()

    def take_care(self, is_careful: bool) -> None:
        """Let one thread decode, or several; a change starts again at the file's begin."""
        if is_careful != self.is_careful:
            self.is_careful = is_careful
            self.reopen()

    def close(self) -> None:
        """Release the file."""
        self.container.close()

    def check_identity(self) -> None:
        """Raises BadVideoError where the file is another than was opened first."""
        if file_identity(self.path) != self.identity:
            raise BadVideoError(f"{self.path}: it was changed or replaced while it was read")

    @property
    def formats(self) -> set[str]:
        """FFmpeg's names of the container."""
        return set(self.container.format.name.split(","))

    def note(self, problem: str) -> None:
        """Add what is wrong with the file to its problems, once."""
        line = f"{self.path}: {problem}"
        if line not in self.problems:
            self.problems.append(line)

    @contextmanager
    def damage(self) -> Iterator[list[str]]:
        """Take FFmpeg's errors for damage of the file, and say what they were; the machine's go on."""
        said: list[str] = []
        try:
            yield said
        except av.error.FFmpegError as error:
            if ends_run(error):
                raise
            said.append(error.strerror or type(error).__name__)

    def packets(self) -> Iterator[av.Packet]:
        """Demux the stream's packets from the current place on; a break in the file ends them."""
        with self.damage() as said:
            yield from self.demuxed(self.container, self.stream)
        for words in said:
            self.note(f"broken off ({words})")

    def demuxed(self, container: av.container.InputContainer, *streams) -> Iterator[av.Packet]:
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
            raise av.error.InvalidDataError(errno.EINVAL, said)

    def decode(self, packet: av.Packet | None) -> tuple[list[av.VideoFrame], str | None]:
        """Give the frames a packet brings forth (None: those still held back), and what is wrong with it."""
        frames = []
        with self.damage() as said:
            try:
                frames = self.context.decode(packet)
            except MemoryError as error:  # as dav1d says of broken packets
                if not _has_memory():
                    raise
                said.append(error.strerror)
        self.decoded_frames += len(frames)
        return frames, said[0] if said else None

    def pauses(self) -> list[av.Packet]:
        """Packets without a picture that let H.264's threads end before the decoder is emptied.

        Else a picture that one thread hands out while another is still at work on it lacks that one's word
        that it is damaged.
        """
        if self.context.name != "h264" or self.context.thread_count == 1:
            return []
        extradata = self.context.extradata or b""
        size = (extradata[4] & 3) + 1 if extradata[:1] == b"\1" and len(extradata) > 4 else 0
        before = len(_DELIMITER).to_bytes(size) if size else b"\0\0\0\1"
        self.context.skip_frame = "NONREF"  # else a packet without a picture is an error
        return [av.Packet(before + _DELIMITER) for _ in range(self.context.thread_count - 1)]


def _has_memory() -> bool:
    """Tell whether the machine still gives what any packet of a whole file may need."""
    try:
        return len(bytearray(_LARGE_PACKET)) == _LARGE_PACKET
    except MemoryError:
        return False
