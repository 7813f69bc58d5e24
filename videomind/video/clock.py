"""When each frame is shown: by counting where the rate is constant, else by the times in the file."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

LATE_START_S = 0.1  # a first picture later than the sound by more than this is not taken for the start
JUMP_S = 10.0  # a step that only a container with an index is believed
FINE_S = 1 / 30  # step of the grid over a video whose rate varies, or its usual step if that is less
_USUAL_RATES = (
    *map(Fraction, (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)),
    *(Fraction(rate * 1000, 1001) for rate in (12, 24, 30, 48, 60, 120)),
    Fraction(25, 2),
)
_STEADY_SHARE = 0.8  # of the steps are the usual one, where a longer one is a missing picture
_LONG_STEP = 1.5  # usual steps
_LONG_PAUSE_S = 1.0  # where steps vary, and in files that lose no picture
_LONG_PAUSE = 10  # usual steps


@dataclass(frozen=True, kw_only=True)
class Clock:
    """An even grid of positions over a video, and the frame that is shown at each.

    Where the rate is constant, positions are the frames themselves.

    Attributes:
        total: positions.
        fps: positions per second; `total / fps` is the video's length.
        times: when each frame is shown, s, not decreasing; None where frame i is shown at `i / fps`.
    """

    total: int
    fps: float
    times: Sequence[float] | None = None

    @property
    def duration_s(self) -> float:
        """The video's length."""
        return self.total / self.fps

    def frame_at(self, position: int) -> int:
        """Find the frame shown at a position: the last one that begins within half a step of it or before."""
        if self.times is None:
            return position
        return max(0, bisect_right(self.times, (position + 0.5) / self.fps - 1e-9) - 1)

    def time_of(self, frame: int) -> float:
        """Tell when a frame is shown, s."""
        return frame / self.fps if self.times is None else self.times[frame]


def counted_clock(total: int, fps: float) -> Clock:
    """Make the clock of frames that have no times of their own."""
    return Clock(total=total, fps=fps)


def clock_of(times: Sequence[float], *, start_s: float, last_s: float, rates: Iterable, lost: int) -> Clock:
    """Make the clock of frames with times.

    A constant rate is one by which every frame is counted to within half a step of its time.

    Args:
        times: of each frame, s, not decreasing.
        start_s: of the video, on the same scale.
        last_s: how long the last frame is shown; 0 if the file does not say.
        rates: what the header says, frames per second, the first that fits is taken.
        lost: frames that the file's index lists beyond its end.
    """
    late = times[0] - start_s
    late = late if late > LATE_START_S else 0.0
    shown = (np.asarray(times) - times[0] + late).tolist()
    step = usual_step(shown)
    if not late and (fps := _constant_rate(shown, rates)):
        return counted_clock(len(times) + lost, fps)
    if not step:
        return counted_clock(len(times) + lost, next((float(rate) for rate in rates if rate), 0.0))
    last = shown[-1]
    shown += [last + step * (i + 1) for i in range(lost)]
    duration = shown[-1] + (step if lost or last_s <= 0 else last_s)
    step = min(step, FINE_S)
    total = max(1, round(duration / step))
    return Clock(total=total, fps=total / duration, times=shown)


def usual_step(times: Sequence[float]) -> float:
    """Compute the median of the steps between frames, s; 0 if there is none."""
    steps = np.diff(np.asarray(times, dtype=np.float64))
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else 0.0


def _constant_rate(shown: Sequence[float], rates: Iterable) -> float | None:
    """Find a rate that counts every frame to within half a step, if any: the header's before others."""
    candidates = [rate for rate in rates if rate]
    if len(shown) == 1:
        return float(candidates[0]) if candidates else None
    if shown[-1] > 0:
        fitted = (len(shown) - 1) / shown[-1]
        candidates += sorted(_USUAL_RATES, key=lambda rate: abs(rate - fitted))[:2] + [fitted]
    times, numbers = np.asarray(shown), np.arange(len(shown))
    for rate in candidates:
        fps = float(rate)
        if (np.abs(times * fps - numbers) <= 0.5).all():
            return fps
    return None


def continued(
    stamps: Sequence[float | None], *, step: float, believes_jumps: bool
) -> tuple[list[float], list[int]]:
    """Let times go on where they start again or jump, as in joined recordings.

    Args:
        stamps: of each picture in the order shown, s; None where the file has none.
        step: the usual one, s.
        believes_jumps: whether a long pause is the video's own.

    Returns:
        Times that never decrease; the pictures at which they went on with the usual step.
    """
    if None not in stamps and len(stamps) > 1:  # mostly they go on by themselves
        seen = np.asarray(stamps, dtype=np.float64)
        so_far = np.maximum.accumulate(seen)
        moved = seen[1:] - so_far[:-1]
        longest = math.inf if believes_jumps else max(JUMP_S, 2 * step)
        if (moved >= -2 * step).all() and (moved <= longest).all():
            return so_far.tolist(), []
    times: list[float] = []
    breaks, shift = [], 0.0
    for i, stamp in enumerate(stamps):
        if not times:
            times.append(0.0 if stamp is None else stamp)
            continue
        expected = times[-1] + step
        time = expected if stamp is None else stamp + shift
        moved = time - times[-1]
        if moved < -2 * step or (moved > max(JUMP_S, 2 * step) and not believes_jumps):
            breaks.append(i)
            shift += expected - time
            time = expected
        times.append(max(time, times[-1]))
    return times, breaks


def gaps(times: Sequence[float], *, loses_pictures: bool) -> list[int]:
    """Find the frames before which pictures are missing, or nothing moves for long.

    Args:
        times: of each frame, s.
        loses_pictures: whether a file of this kind can lose single ones unnoticed.
    """
    step = usual_step(times)
    steps = np.diff(np.asarray(times, dtype=np.float64))
    usual = (np.abs(steps - step) <= 0.25 * step + 0.0011).sum()
    longest = max(_LONG_PAUSE_S, _LONG_PAUSE * step)
    if loses_pictures and step and usual >= _STEADY_SHARE * len(steps):
        longest = _LONG_STEP * step + 0.0011  # some containers round times to a millisecond
    return (np.flatnonzero(steps > longest) + 1).tolist()
