"""The table of a stream's packets, and which of them to decode for some frames."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property

from videomind.video.bitstream import UNKNOWN, Inspector, is_zeroed

_ONCE = ("palette", "new_extradata", "param_change")  # side data that a demuxer does not give again


@dataclass(frozen=True)
class Stretch:
    """A stretch of packets that is decoded in one go.

    Attributes:
        first: number of its first packet, from which decoding can start.
        last: number of the last packet that is needed.
        frame_at: presentation time to frame number, of the frames that are asked for.
    """

    first: int
    last: int
    frame_at: dict[int, int]


@dataclass
class PacketTable:
    """Where each frame is, found by reading all packets of a stream once without decoding any.

    Attributes:
        pts: presentation time of each packet, in the file's (decoding) order.
        dts: decoding time of each packet.
        offsets: where each packet begins in the file; negative or None if that is not known.
        sizes: bytes of each packet.
        durations: how long each packet's picture is shown, in units of the stream, if the file says so.
        starts: the packets that decoding can start at, in the file's order.
        frames: the packet of each frame, in the order they are shown; as far as packets tell it.
        damaged: packets that arrived broken.
        keeps_state: whether a demuxer said something once that holds for what follows.
        is_told: whether packets tell which pictures are shown, without decoding.
    """

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    offsets: list[int | None] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    durations: list[int | None] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    keeps_state: bool = False
    is_told: bool = True

    @classmethod
    def read(cls, packets: Iterable, *, codec: str, inspect: Inspector | None) -> "PacketTable":
        """Build the table.

        Args:
            packets: all of the stream.
            codec: FFmpeg's name of it.
            inspect: tells a packet's content; None for a codec that has to be decoded to tell.
        """
        table = cls(is_told=inspect is not None)
        for number, packet in enumerate(packets):
            table._add(number, packet, codec, inspect)
        if table.is_told and (None in table.pts or len(set(table.pts)) < len(table.pts)):
            table.is_told = False
        if table.is_told:
            table.frames.sort(key=table.pts.__getitem__)
            # A recording that begins within a group: some pictures have no key picture.
            table.is_told = table.starts[:1] == [0] and not (
                table.frames and table.pts[table.frames[0]] < table.pts[0]
            )
        return table

    def copy(self) -> "PacketTable":
        """Copy what a reader changes: which packets are damaged, and the frames as a whole."""
        same = copy(self)
        same.damaged = set(self.damaged)
        return same

    def _add(self, number: int, packet, codec: str, inspect: Inspector | None) -> None:
        data = bytes(packet)
        self.pts.append(packet.pts)
        self.dts.append(packet.dts)
        self.offsets.append(packet.pos)
        self.sizes.append(packet.size)
        self.durations.append(packet.duration)
        if packet.is_corrupt or is_zeroed(codec, data):
            self.damaged.add(number)
        # (`has_sidedata` takes as long as all else together.)
        if number and any(side.data_type in _ONCE for side in packet.iter_sidedata()):
            self.keeps_state = True
        try:
            shown, starts = inspect(data, packet.is_keyframe) if inspect else UNKNOWN
        except IndexError:  # it ends within its headers
            shown, starts = UNKNOWN
            self.damaged.add(number)
        if starts:
            self.starts.append(number)
        if shown != 1 and shown != 0:
            self.is_told = False
        if shown != 0 and not packet.is_discard:  # cut off by an edit list: decoded, never shown
            self.frames.append(number)

    @cached_property
    def numbers(self) -> dict[tuple[int | None, int], int]:
        """The packet of each (pts, size).

        The size as well, because right after a seek MPEG streams give part of a packet under a false time.
        """
        return {key: number for number, key in enumerate(zip(self.pts, self.sizes, strict=True))}

    @cached_property
    def last_duration(self) -> int:
        """How long the picture with the last time is shown, in units of the stream; 0 if unknown."""
        known = [-math.inf if time is None else time for time in self.pts]
        if not known:
            return 0
        if self.pts[-1] is None:  # what has no time comes last
            return self.durations[-1] or 0
        latest = max(known)
        return self.durations[len(known) - 1 - known[::-1].index(latest)] or 0

    def hole_before(self, number: int) -> int | None:
        """Tell how many bytes lie between a packet and the one before it, if that is known."""
        here, before = self.offsets[number], self.offsets[number - 1] if number else None
        if here is None or here < 0 or before is None or before < 0:
            return None
        return here - before - self.sizes[number - 1]

    @property
    def is_unique(self) -> bool:
        """Whether a presentation time tells which packet a picture comes from."""
        return None not in self.pts and len(set(self.pts)) == len(self.pts)

    @cached_property
    def number_at(self) -> dict[int | None, int]:
        """The packet of each presentation time."""
        return {time: number for number, time in enumerate(self.pts)}

    def show(self, pts: Sequence[int]) -> None:
        """Take the frames from what decoding has shown, by their presentation times."""
        self.frames = [self.number_at[time] for time in pts]
        self.is_told = True

    def runs(self, indices: Sequence[int], *, earlier: int) -> list[Stretch]:
        """Find the stretches of packets to decode for some frames; whole groups between are passed over.

        A frame needs everything from the last start shown before it, which is also right for the
        leading pictures of an open group: those come after the next key picture in the file.

        Args:
            indices: increasing frame numbers.
            earlier: by how many starts to begin too soon.

        Returns:
            The stretches in the file's order.
        """
        starts = sorted(self.starts, key=self.pts.__getitem__)
        start_pts = [self.pts[k] for k in starts]
        runs: list[Stretch] = []
        for index in indices:
            packet = self.frames[index]
            nearest = bisect_right(start_pts, self.pts[packet]) - 1 - earlier
            first, last, frame_at = starts[nearest] if nearest >= 0 else 0, packet, {}
            if runs and first <= runs[-1].last + 1:  # goes on where the last one ends
                before = runs.pop()
                first, last, frame_at = before.first, max(before.last, packet), before.frame_at
            runs.append(Stretch(first, last, {**frame_at, self.pts[packet]: index}))
        return runs

    def depends_on(self, packet: int, damaged: Iterable[int]) -> bool:
        """Tell whether a picture may show the damage of other packets: of one since its last start."""
        time = self.pts[packet]
        nearest = bisect_right(self.starts, packet) - 1
        # A leading picture needs what is before.
        while nearest >= 0 and self.pts[self.starts[nearest]] > time:
            nearest -= 1
        start = self.starts[nearest] if nearest >= 0 else 0
        return any(start <= number <= packet for number in damaged)
