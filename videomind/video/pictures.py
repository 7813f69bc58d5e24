"""Decoded frames of one file as RGB pictures of one size, turned as ffmpeg's player shows them."""

import math
import struct

import av
import numpy as np

from videomind.video.stream import VideoStream

_DISPLAY_MATRIX = "DISPLAYMATRIX"
_TOLERANCE = 1.0  # degrees


class Pictures:
    """Converts frames.

    Attributes:
        size: (W, H) of all pictures, before they are turned.
        pixel_aspect: width of a pixel of the last picture as it is shown, for its height.
        reformatter: PyAV's.
    """

    def __init__(self, file: VideoStream):
        self.size = file.context.width, file.context.height
        self.reformatter = av.video.reformatter.VideoReformatter()
        self.pixel_aspect = self._stored_aspect = float(file.stream.sample_aspect_ratio or 1)
        self._file = file
        self._is_size_sure = False

    def convert(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert a frame to its RGB picture (H, W, 3), of the video's size, turned as the metadata says."""
        if (frame.width, frame.height) != self.size and not self._is_size_sure:
            self._make_sure_of_size()
        if frame.interlaced_frame:
            frame = self._progressive(frame)
        width, height = self.size
        # Unless told, PyAV starts as many threads as there are cores for the conversion of each picture.
        rgb = self.reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        matrix = frame.side_data.get(_DISPLAY_MATRIX)
        if matrix is None:
            return rgb
        if (turns := quarter_turns(bytes(matrix))) is None:
            self._file.note(f"turned by {frame.rotation} degrees in its metadata, read unturned")
        is_swapped = turns is not None and turns[0]
        self.pixel_aspect = 1 / self._stored_aspect if is_swapped else self._stored_aspect
        return turned(rgb, bytes(matrix))

    def _make_sure_of_size(self) -> None:
        """Let the first picture decide on the video's size: some headers are wrong."""
        self._is_size_sure = True
        container = self._file.opened()
        with container, self._file.damage():
            first = next(container.decode(container.streams[self._file.stream.index]), None)
            if first is not None:
                self.size = first.width, first.height

    def _progressive(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Copy a frame without its interlaced mark, which changes the colour conversion.

        The frames that published checkpoints were trained on were converted as progressive ones.
        """
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=self._file.stream.time_base,
        )
        graph.link_nodes(source, graph.add("setfield", "mode=prog"), graph.add("buffersink")).configure()
        graph.push(frame)
        return graph.pull()


def quarter_turns(matrix: bytes | None) -> tuple[bool, bool, bool] | None:
    """Read a display matrix.

    Args:
        matrix: nine 32-bit integers in the machine's order, or None. One that has no angle changes nothing.

    Returns:
        Whether to swap rows and columns, then to mirror left and right, then to mirror top and bottom; None
        for an angle that is no quarter of a turn.
    """
    if matrix is None or len(matrix) < 36:
        return False, False, False
    a, b, _, c, d = struct.unpack("9i", matrix[:36])[:5]  # x, y goes to ax + cy, bx + dy
    scales = math.hypot(a, c), math.hypot(b, d)
    if 0 in scales:
        return False, False, False
    angle = math.degrees(math.atan2(b / scales[1], a / scales[0])) % 90
    if min(angle, 90 - angle) >= _TOLERANCE:
        return None
    if abs(a) > abs(b):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def turned(picture: np.ndarray, matrix: bytes | None) -> np.ndarray:
    """Turn and mirror a picture (H, W, 3) as ffmpeg shows it; by quarters of a turn only."""
    swapped, mirrored, upside_down = quarter_turns(matrix) or (False, False, False)
    shown = picture.transpose(1, 0, 2) if swapped else picture
    shown = shown[:, ::-1] if mirrored else shown
    shown = shown[::-1] if upside_down else shown
    return shown if shown is picture else np.ascontiguousarray(shown)
