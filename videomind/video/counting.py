"""What decoding a whole file in order shows, for files whose packets do not tell it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

_LEADS = 3  # FFmpeg's number of a B picture


@dataclass(frozen=True)
class Shown:
    """The pictures that a file shows.

    Attributes:
        pts: presentation time of each picture in the order they came, in ticks; None if it has none.
        dts: the same of the packet that brought it forth.
        concealed: places of damaged pictures that the decoder painted over.
        doubtful: places of pictures that may show the damage of others.
        skipped_at_start: pictures before the first one that can be shown.
        failed: packets that could not be decoded after it, and what the decoder said of the first.
    """

    pts: list[int | None]
    dts: list[int | None]
    concealed: set[int]
    doubtful: set[int]
    skipped_at_start: int
    failed: tuple[int, str]

    def is_within(self, packets: Collection[int | None]) -> bool:
        """Tell whether each picture is known by one packet's time, and they came in the order of time."""
        known = set(packets)
        if None in self.pts or not known.issuperset(self.pts):
            return False
        return all(a < b for a, b in zip(self.pts, self.pts[1:], strict=False))


class Watch:
    """Notes what a decoder gives, packet by packet."""

    def __init__(self) -> None:
        self._pts: list[int | None] = []
        self._dts: list[int | None] = []
        self._concealed: set[int] = set()
        self._doubtful: set[int] = set()
        self._before_first: list[int] = []
        self._is_in_doubt = False
        self._errors: list[str] = []
        self._led: list[int] = []  # places of the pictures since the last one that others may refer to

    def see(self, packet, frames: Iterable, error: str | None) -> None:
        """Note a packet (None at the end), the pictures it brought forth, and what went wrong with it."""
        if not self._pts and packet is not None and packet.pts is not None and not packet.is_discard:
            self._before_first.append(packet.pts)
        self._is_in_doubt |= error is not None or (packet is not None and packet.is_corrupt)
        if error is not None and self._pts:
            self._errors.append(error)
        for frame in frames:
            number = len(self._pts)
            self._pts.append(frame.pts)
            self._dts.append(frame.dts)
            if frame.is_corrupt:
                self._concealed.add(number)
            elif self._is_in_doubt and not frame.key_frame:
                self._doubtful.add(number)
            if frame.is_corrupt or self._is_in_doubt:
                self._doubtful.update(self._led)  # they are shown before it, and refer to it
            self._is_in_doubt = frame.is_corrupt or (self._is_in_doubt and not frame.key_frame)
            self._led = [*self._led, number] if frame.pict_type == _LEADS else []

    def shown(self) -> Shown:
        """Sum up."""
        first = self._pts[0] if self._pts else None
        skipped = 0 if first is None else sum(time < first for time in self._before_first)
        failed = len(self._errors), next(iter(self._errors), "")
        return Shown(self._pts, self._dts, self._concealed, self._doubtful, skipped, failed)
