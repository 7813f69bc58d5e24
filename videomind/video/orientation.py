"""How a picture is turned and mirrored by its display matrix, as ffmpeg's player does it."""

import math
import struct

import numpy as np

_TOLERANCE = 1.0  # degrees


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
