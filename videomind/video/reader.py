"""What every video reader offers: frames by number, with neighbours standing in for a few damaged ones."""

import importlib
import os
import stat
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from threading import Lock
from types import ModuleType
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from videomind.video.clock import Clock, counted_clock
from videomind.video.request import SKIP

T = TypeVar("T")
MAX_MISSING = 0.1  # share of the wanted frames that neighbours may stand in for
REPLACEMENT_RADIUS = 16  # frames on either side of an undecodable one that are tried in its place
# More threads per video only fight with the other loader workers; two halve the wait of a lone reader.
DECODER_THREADS = 2


class BadVideoError(ValueError):
    """A video that cannot be used; the message names it, what is wrong and what was tried."""


def refuse_damage(problems: Sequence[str], on_damage: str) -> None:
    """Refuse a video that has problems, where such are skipped.

    Args:
        problems: one line each.
        on_damage: `use` or `skip`.

    Raises:
        BadVideoError: it has some, and they are.
    """
    if problems and on_damage == SKIP:
        raise BadVideoError("; ".join(problems) + " (--on_damage skip)")


def file_identity(path: str) -> tuple:
    """Tell a file from another of the same name, and from itself before a change.

    Raises:
        BadVideoError: it is not there, or no regular file.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # a name too long, or with a zero byte
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise BadVideoError(f"{path}: {reason}") from error
    if stat.S_ISDIR(status.st_mode):
        raise BadVideoError(f"{path}: a folder, not a video")
    if not stat.S_ISREG(status.st_mode):
        raise BadVideoError(f"{path}: no regular file but a pipe, a socket or a device")
    return os.path.abspath(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Remembered(Generic[T]):
    """Keeps what was found out of the files that were asked for last: roles of a chain open the same video.

    Several threads may ask at once.

    Args:
        most: weight of all that is kept.
        weight: of one.
    """

    def __init__(self, most: int, weight: Callable[[T], int] = lambda _: 1):
        self._most, self._weight = most, weight
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = Lock()

    def take(self, key: Hashable, make: Callable[[], T]) -> T:
        """Give what is kept of a file, or make it.

        Args:
            key: of the very file, as `file_identity` gives it.
            make: called where nothing is kept; other threads may work on other files meanwhile.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()
        with self._lock:
            self._kept[key] = value
            while sum(map(self._weight, self._kept.values())) > self._most:
                self._kept.popitem(last=False)
        return value


def listed(numbers: Iterable[int]) -> str:
    """Word frame numbers: the first of them."""
    numbers = sorted(numbers)
    return f"{numbers[:16]}" + (f" and {len(numbers) - 16} more" if len(numbers) > 16 else "")


def replace_missing(
    numbers: Sequence[int], pool: dict[int, Tensor], path: str, reasons: Mapping[int, str]
) -> list[str]:
    """Let the nearest frame of `pool` stand in for each frame that is not there.

    Args:
        numbers: distinct frame numbers.
        pool: what could be decoded, by number; it gets the stand-ins as well.
        path: of the video, for messages.
        reasons: why frames are not there, as far as that is known.

    Returns:
        One line that says what was replaced, or nothing.

    Raises:
        BadVideoError: more than a tenth of the wanted frames are missing.
    """
    missing = [i for i in numbers if i not in pool]
    if not missing:
        return []
    count = f"{len(missing)} of the {len(numbers)} wanted frames cannot be decoded"
    if known := [i for i in missing if i in reasons]:
        count += f" (frame {known[0]}: {reasons[known[0]]})"
    if len(missing) > MAX_MISSING * len(numbers):
        raise BadVideoError(f"{path}: {count}, more than {MAX_MISSING:.0%}")
    sources = {i: min(pool, key=lambda j: (abs(j - i), j)) for i in missing}
    pool |= {i: pool[j] for i, j in sources.items()}
    pairs = ", ".join(f"{j} for {i}" for i, j in list(sources.items())[:8])
    return [f"{path}: {count}; the nearest stand in ({pairs}{', …' if len(missing) > 8 else ''})"]


class VideoReader(ABC):
    """One open video. Use it in a `with` block.

    Attributes:
        path: the file.
        total_frames: frames it has, counted, not taken from the container's word.
        fps: average frames per second.
        problems: what is wrong with the file as such, one line each.
        clock: when each frame is shown.
        gaps: (start, end), s, where pictures are missing or nothing moves for long.
        concealed: numbers of frames that were damaged and painted over by the decoder.
        doubtful: numbers of frames that may show the damage of frames before them.
        resized: (W, H) of frames that have another size than the video's.
        reasons: why frames could not be decoded, where the decoder says it.
        pixel_aspect: width of a pixel as shown, for its height; None where the reader does not know.
        has_times: whether its times are the file's own, not the caller's.
        module: what decodes.
        remedy: how to get that.
    """

    total_frames: int
    fps: float
    pixel_aspect: float | None = None
    has_times: ClassVar[bool] = True
    module: ClassVar[str] = "PIL"
    remedy: ClassVar[str] = "pip install videomind"

    @classmethod
    def load(cls) -> ModuleType:
        """Import what decodes.

        Raises:
            ImportError: it is not installed.
            RuntimeError: a library of the system that it needs is missing.
            OSError: the same, of other decoders.
        """
        return importlib.import_module(cls.module)

    def __init__(self, path: str):
        self.path = path
        self.problems: list[str] = []
        self.gaps: list[tuple[float, float]] = []
        self.concealed: set[int] = set()
        self.doubtful: set[int] = set()
        self.resized: dict[int, tuple[int, int]] = {}
        self.reasons: dict[int, str] = {}

    @cached_property
    def clock(self) -> Clock:
        """When each frame is shown."""
        return counted_clock(self.total_frames, self.fps)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027  (only some readers hold a file open)
        """Release the file."""

    @abstractmethod
    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode some frames; what cannot be decoded is left out.

        Args:
            indices: distinct, increasing frame numbers.

        Yields:
            Number and picture, (H, W, 3) uint8 RGB, in any order; of two of a number the later one counts.
        """

    def get_frames(
        self, indices: Sequence[int], *, transform: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, list[str]]:
        """Read frames.

        Args:
            indices: frame numbers, in any order, repeats allowed.
            transform: applied to each (H, W, 3) frame as soon as it is decoded, so that no more than
                one full-size frame need be held.

        Returns:
            uint8 (T, H, W, 3), or the transformed frames stacked; one line per problem met.

        Raises:
            ValueError: a number lies outside the video.
            BadVideoError: too much is undecodable.
        """
        return self.get_many([indices], transform=transform)[0]

    def get_many(
        self, lists: Sequence[Sequence[int]], *, transform: Callable[[Tensor], Tensor] | None = None
    ) -> list[tuple[Tensor, list[str]]]:
        """Read several lists of frames in one pass; each result is that of `get_frames` alone."""
        each = [sorted(set(indices)) for indices in lists]
        for numbers in each:
            if not numbers or numbers[0] < 0 or numbers[-1] >= self.total_frames:
                raise ValueError(
                    f"{self.path}: frames {numbers} are not within its {self.total_frames} frames"
                )

        def read(numbers: set[int]) -> dict[int, Tensor]:
            frames = ((i, torch.from_numpy(frame)) for i, frame in self.decode(sorted(numbers)))
            return {i: transform(frame) if transform else frame for i, frame in frames}

        every = set().union(*each)
        pool = read(every)
        around = [self._around(numbers, pool) for numbers in each]
        pool |= read(set().union(*around) - every)
        results = []
        for indices, numbers, neighbours in zip(lists, each, around, strict=True):
            own = {i: pool[i] for i in (*numbers, *sorted(neighbours)) if i in pool}
            there = set(numbers) & own.keys()
            problems = self.problems + replace_missing(numbers, own, self.path, self.reasons)
            problems += self._problems_of(there)
            results.append((torch.stack([own[i] for i in indices]), problems))
        return results

    def _problems_of(self, numbers: set[int]) -> list[str]:
        """Say what is wrong with some frames that are there, one line each kind."""
        problems = []
        if concealed := self.concealed & numbers:
            words = "damaged frames, painted over by the decoder"
            problems.append(f"{self.path}: {words}: {listed(concealed)}")
        if doubtful := self.doubtful & numbers - concealed:
            words = "frames that may show the damage of frames before them"
            problems.append(f"{self.path}: {words}: {listed(doubtful)}")
        if resized := {i: size for i, size in self.resized.items() if i in numbers}:
            sizes = ", ".join(f"{width} x {height}" for width, height in sorted(set(resized.values())))
            problems.append(f"{self.path}: frames of another size ({sizes}), scaled: {listed(resized)}")
        return problems

    def _around(self, numbers: Sequence[int], pool: dict[int, Tensor]) -> set[int]:
        """Find neighbours of the frames that could not be decoded, when they are few."""
        missing = [i for i in numbers if i not in pool]
        if not 0 < len(missing) <= MAX_MISSING * len(numbers):
            return set()
        around = {j for i in missing for j in range(i - REPLACEMENT_RADIUS, i + REPLACEMENT_RADIUS + 1)}
        return {j for j in around - set(numbers) if 0 <= j < self.total_frames}
