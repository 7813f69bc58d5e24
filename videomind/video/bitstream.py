"""What a packet holds, told from its first bytes: how many pictures it shows, and whether decoding can start.

A container's word is not enough: it counts pictures that are never shown (VP8, VP9, AV1), and calls pictures
key that need others (intra refresh, Xvid in avi). A codec that is not listed here is decoded in order.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

ZERO_RUN = bytes(128)  # no encoder of a listed codec writes so many zeros on end; a damaged disk does
_MAX_SEI = 4096  # bytes; a recovery point stands before longer messages


class Content(NamedTuple):
    """What one packet holds.

    Attributes:
        shown: pictures that it shows; None if that cannot be told from its first bytes.
        starts: whether all that is shown from this picture on can be decoded from here.
    """

    shown: int | None
    starts: bool


UNKNOWN = Content(None, False)
_DEPENDENT = Content(1, False)  # a picture that needs others
Inspector = Callable[[bytes, bool], Content]  # a packet's bytes, whether the container calls it a key picture


class _Bits:
    """Reads bits and Exp-Golomb codes, most significant first; raises IndexError behind the end."""

    def __init__(self, data: bytes):
        self._data, self._place = data, 0

    def read(self, count: int = 1) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._place >> 3] >> (7 - (self._place & 7)) & 1
            self._place += 1
        return value

    def golomb(self) -> int:
        zeros = 0
        while not self.read():
            zeros += 1
            if zeros > 32:
                raise IndexError("no Exp-Golomb code")
        return (1 << zeros) - 1 + self.read(zeros)


def inspector(codec: str, extradata: bytes | None) -> Inspector | None:
    """Choose what tells the packets of a codec apart; None for one that must be decoded to tell.

    Args:
        codec: FFmpeg's name of it.
        extradata: what the container says once for all packets.
    """
    head = extradata or b""
    if codec == "h264":
        return H264(head)
    if codec == "hevc":
        return HEVC(head)
    return {"vp8": vp8, "vp9": vp9, "av1": av1, "mjpeg": mjpeg}.get(codec)


def is_zeroed(codec: str, data: bytes) -> bool:
    """Tell whether a part of a packet has been overwritten by zeros, as far as the codec tells."""
    if codec == "mjpeg" and ZERO_RUN in data:  # some cameras fill up their packets
        return ZERO_RUN in data.rstrip(b"\0")
    return codec in ("h264", "hevc", "vp8", "vp9", "av1", "ffv1") and ZERO_RUN in data


class _Units:
    """The NAL units of H.264 and HEVC packets, with length fields or start codes before them."""

    def __init__(self, extradata: bytes, place_of_size: int):
        self._sized = extradata[:1] == b"\1" and len(extradata) > place_of_size
        self._size = (extradata[place_of_size] & 3) + 1 if self._sized else 0

    def __call__(self, data: bytes) -> Iterator[bytes]:
        return self._by_size(data) if self._sized else by_start_code(data)

    def _by_size(self, data: bytes) -> Iterator[bytes]:
        offset = 0
        while offset + self._size < len(data):
            size = int.from_bytes(data[offset : offset + self._size])
            offset += self._size
            yield data[offset : offset + min(size, _MAX_SEI)]
            offset += size


def by_start_code(data: bytes) -> Iterator[bytes]:
    """Split at start codes 00 00 01. Yields the first bytes of each unit."""
    offset = data.find(b"\0\0\1")
    while offset >= 0:
        offset += 3
        following = data.find(b"\0\0\1", offset)
        yield data[offset : min(following if following >= 0 else len(data), offset + _MAX_SEI)]
        offset = following


def _unescaped(unit: bytes) -> bytes:
    return unit.replace(b"\0\0\3", b"\0\0")


class H264:
    """H.264: an IDR picture starts, and so does a recovery point at which everything is right at once."""

    def __init__(self, extradata: bytes):
        self._units = _Units(extradata, 4)
        self._by_fields = any(map(_may_hold_fields, _parameter_sets(extradata, self._units)))

    def __call__(self, data: bytes, is_key: bool) -> Content:
        if not is_key:
            return UNKNOWN if self._by_fields else _DEPENDENT
        starts = False
        for unit in self._units(data):
            kind = unit[0] & 31 if unit else 0
            if kind == 7:
                self._by_fields |= _may_hold_fields(unit)
            elif kind == 6:
                starts |= _recovers_at_once(unit)
            elif kind in (1, 5):
                starts |= kind == 5
                break
        # Where a picture may be two fields, a packet may hold one of them.
        return Content(None if self._by_fields else 1, starts)


def _parameter_sets(extradata: bytes, units: _Units) -> Iterator[bytes]:
    """Read the sequence parameter sets of H.264's extradata."""
    if extradata[:1] != b"\1":
        yield from (unit for unit in by_start_code(extradata) if unit and unit[0] & 31 == 7)
        return
    offset = 6
    for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
        size = int.from_bytes(extradata[offset : offset + 2])
        yield extradata[offset + 2 : offset + 2 + size]
        offset += 2 + size


def _may_hold_fields(unit: bytes) -> bool:
    """Tell whether a sequence parameter set allows pictures of two fields (frame_mbs_only_flag is 0)."""
    bits = _Bits(_unescaped(unit)[1:])
    try:
        profile = bits.read(24) >> 16
        bits.golomb()  # its number
        if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
            chroma = bits.golomb()
            bits.read(1 if chroma == 3 else 0)
            bits.golomb(), bits.golomb(), bits.read()
            if bits.read():
                for i in range(8 if chroma != 3 else 12):
                    if bits.read():
                        _skip_scaling_list(bits, 16 if i < 6 else 64)
        bits.golomb()
        order = bits.golomb()
        if order == 0:
            bits.golomb()
        elif order == 1:
            bits.read(), bits.golomb(), bits.golomb()
            for _ in range(bits.golomb()):
                bits.golomb()
        bits.golomb(), bits.read(), bits.golomb(), bits.golomb()
        return not bits.read()
    except IndexError:
        return True


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            following = (last + ((code + 1) // 2 if code & 1 else -(code // 2))) % 256
        last = following or last


def _recovers_at_once(unit: bytes) -> bool:
    """Tell whether supplemental information says: decoding from here gives every later picture exactly."""
    data, offset = _unescaped(unit), 1
    while offset + 2 < len(data):
        kind = size = 0
        while offset < len(data) and data[offset] == 255:
            kind, offset = kind + 255, offset + 1
        if offset < len(data):
            kind, offset = kind + data[offset], offset + 1
        while offset < len(data) and data[offset] == 255:
            size, offset = size + 255, offset + 1
        if offset < len(data):
            size, offset = size + data[offset], offset + 1
        if kind == 6 and offset < len(data):
            bits = _Bits(data[offset:])
            return bits.golomb() == 0 and bool(bits.read())  # pictures until then, and whether exactly
        offset += size
    return False


class HEVC:
    """HEVC: an IDR, a broken-link or a clean random access picture starts."""

    def __init__(self, extradata: bytes):
        self._units = _Units(extradata, 21)
        # Where there are layers in time, one that is marked as not referred to may be by a higher layer.
        self.is_flat = extradata[:1] == b"\1" and len(extradata) > 21 and extradata[21] >> 3 & 7 == 1

    def __call__(self, data: bytes, is_key: bool) -> Content:
        kinds = (unit[0] >> 1 & 63 for unit in self._units(data) if unit) if is_key else iter(())
        first = next((kind for kind in kinds if kind < 32), 0)  # those above are no pictures
        return Content(1, 16 <= first <= 21)


def vp8(data: bytes, is_key: bool) -> Content:
    """VP8: the first byte tells."""
    return Content(data[0] >> 4 & 1, is_key and not data[0] & 1)


def vp9(data: bytes, is_key: bool) -> Content:
    """VP9: a packet may be a superframe, hidden pictures and one that is shown."""
    frames = [data]
    mark = data[-1]
    if mark & 0xE0 == 0xC0:
        count, width = (mark & 7) + 1, (mark >> 3 & 3) + 1
        index = data[-(2 + count * width) : -1]
        if len(index) == 1 + count * width and index[0] == mark:
            frames, offset = [], 0
            for i in range(count):
                size = int.from_bytes(index[1 + i * width : 1 + (i + 1) * width], "little")
                frames.append(data[offset : offset + min(size, 16)])
                offset += size
    heads = [_vp9_head(frame) for frame in frames if frame]
    if not heads or None in heads:
        return UNKNOWN
    return Content(sum(shown for shown, _ in heads), is_key and heads[0][1])


def _vp9_head(frame: bytes) -> tuple[bool, bool] | None:
    """Tell whether a VP9 frame is shown, and whether it is a key frame; None if it is no VP9 frame."""
    bits = _Bits(frame[:2] + b"\0\0")
    if bits.read(2) != 2:
        return None
    profile = bits.read() | bits.read() << 1
    if profile == 3:
        bits.read()
    if bits.read():  # shows one that was decoded before
        return True, False
    is_key = not bits.read()
    return bool(bits.read()), is_key


def av1(data: bytes, is_key: bool) -> Content:
    """AV1: the headers of a temporal unit's frames tell."""
    shown, offset, first, has_sequence = 0, 0, None, False
    while offset < len(data):
        kind, sized = data[offset] >> 3 & 15, data[offset] & 2
        offset += 2 if data[offset] & 4 else 1
        size = len(data) - offset
        if sized:
            size = shift = 0
            while offset < len(data):
                size |= (data[offset] & 127) << shift
                shift, offset = shift + 7, offset + 1
                if not data[offset - 1] & 128:
                    break
        if kind == 1:
            has_sequence = True
            if offset < len(data) and data[offset] & 8:  # a still picture's short header
                return UNKNOWN
        elif kind in (3, 6) and offset < len(data):
            head = data[offset]
            is_shown = bool(head & 0x80 or head & 0x10)
            shown += is_shown
            if first is None:
                first = is_shown and not head & 0xE0  # a key frame that is shown itself
        offset += size
    return Content(shown, bool(is_key and has_sequence and first))


def mjpeg(data: bytes, is_key: bool) -> Content:
    """Motion JPEG: every picture is whole, if it brings its quantisation tables."""
    return Content(1, data[:2] == b"\xff\xd8" and b"\xff\xdb" in data[:4096])
