"""Compares what the reader gives of a made file with decoding it in order, and with the times made."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import av
import numpy as np
from helpers.videos import number_of
from videos.making import FPS, Made

from videomind.roles import VisualBudget, VisualUnits
from videomind.video.excerpts import read_excerpt
from videomind.video.reader import BadVideoError
from videomind.video.readers import open_reader
from videomind.video.request import Excerpt

UNITS = VisualUnits(token_side=16, frames_per_step=2)
BUDGET = VisualBudget(min_tokens=1, max_tokens=48, max_frames=64, fps=8.0, units=UNITS)


@dataclass
class Verdict:
    """What came of the reads of one file: counts, and the reads that were wrong without a word."""

    right: int = 0
    marked: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reference:
    """Every picture that decoding a file in order gives, by FFmpeg alone and one thread, with its time, s."""

    pictures: list[np.ndarray]
    times: list[float] | None

    def at(self, place: int, time: float) -> np.ndarray | None:
        """The picture at a time; by its place where the file has no times."""
        if self.times is None:
            return self.pictures[place] if place < len(self.pictures) else None
        near = [i for i, t in enumerate(self.times) if abs(t - time) < 0.011]
        return self.pictures[near[0]] if near else None


def in_order(path) -> Reference:
    """Decode a file in order."""
    found, stamps = [], []
    options = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    with av.open("file:" + str(path), **options) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        try:
            for packet in container.demux(stream):
                stamps += [packet.pts] if packet.pts is not None and not packet.is_discard else []
                try:
                    found += stream.codec_context.decode(packet) if packet.size else []
                except av.error.FFmpegError:
                    continue
            found += stream.codec_context.decode(None)
        except (av.error.FFmpegError, EOFError):
            pass
        found = [frame for frame in found if not frame.interlaced_frame]
        pictures = [frame.to_ndarray(format="rgb24") for frame in found]
        shown = [frame.pts for frame in found]
        is_counter = container.format.name == "avi" and shown != sorted(shown, key=lambda pts: pts or 0)
        if None in shown or len(set(shown)) < len(shown) or is_counter:
            return Reference(pictures, None)
        return Reference(pictures, [float((pts - min(stamps)) * stream.time_base) for pts in shown])


def check(made: Made, *, seed: int = 0, singles: int = 8, clips: int = 4) -> Verdict:
    """Read random single frames, clips and the whole of a file, and judge each read."""
    verdict, rng = Verdict(), random.Random(seed)
    path = str(made.path)
    try:
        with open_reader(path, "pyav") as reader:
            expected = in_order(path)
            reads = [[rng.randrange(reader.total_frames)] for _ in range(singles)]
            reads += [sorted(rng.choices(range(reader.total_frames), k=6)), list(range(reader.total_frames))]
            total = reader.total_frames
            if made.is_whole and total != sum(time >= 0 for time in made.times):
                verdict.wrong.append(f"{total} frames of {len(made.times)}")
            for read in reads:
                _judge_frames(verdict, made, reader, read, expected)
    except BadVideoError as error:
        verdict.refused += 1
        if made.is_whole:
            verdict.wrong.append(f"refused: {error}")
        return verdict
    end = max(made.times)
    for i in range(clips):
        start, stop = sorted(rng.uniform(0, end) for _ in range(2)) if i else (None, None)
        _judge_clip(verdict, made, expected, start, stop)
    return verdict


def _judge_frames(verdict: Verdict, made: Made, reader, read: Sequence[int], expected: Reference) -> None:
    try:
        frames, problems = reader.get_frames(read)
    except BadVideoError:
        verdict.refused += 1
        return
    if problems:
        verdict.marked += 1
        return
    bad, first = [], reader.clock.time_of(0)
    for i, frame in zip(read, frames, strict=True):
        time = reader.clock.time_of(i)
        same = expected.at(i, time - first)
        if same is not None and same.shape == frame.shape:
            is_right = np.array_equal(frame, same)
        else:  # decoding in order gives none; it must be the picture that was made for this time
            is_right = not expected.pictures or _is_shown(made, expected, number_of(frame), time)
        if not is_right:
            bad.append((i, round(time, 2), number_of(frame)))
    if bad:
        verdict.wrong.append(
            f"{len(bad)} of {len(read)} frames are not those of decoding in order: {bad[:4]}"
        )
    else:
        verdict.right += 1


def _judge_clip(
    verdict: Verdict, made: Made, expected: Reference, start: float | None, stop: float | None
) -> None:
    excerpt = Excerpt(path=str(made.path), budget=BUDGET, start_s=start, end_s=stop)
    try:
        result = read_excerpt(excerpt)
    except BadVideoError as error:
        verdict.refused += 1
        if made.is_whole and "remain" not in str(error):
            verdict.wrong.append(f"refused: {error}")
        return
    if result.problems:
        verdict.marked += 1
        return
    length = result.total_frames / result.fps  # of a file that was cut off unnoticed it is less than made
    first, last = start or 0.0, min(length if stop is None else stop, length - 1 / result.fps)
    wanted = np.linspace(first, last, len(result.frames))
    off = [
        (round(float(t), 2), number_of(frame.permute(1, 2, 0)))
        for t, frame in zip(wanted, result.frames, strict=True)
        if not _is_shown(made, expected, number_of(frame.permute(1, 2, 0)), float(t))
    ]
    if off:
        verdict.wrong.append(
            f"clip {start} to {stop} (fps {result.fps:.3f}, {result.total_frames}): {off[:4]}"
        )
    else:
        verdict.right += 1


def _is_shown(made: Made, expected: Reference, number: int | None, at: float) -> bool:
    """Whether a picture is shown at a time, or within half a step of it, as made or in order decoded."""
    if number is not None and number < len(made.times):
        begin = made.times[number]
        end = made.times[number + 1] if number + 1 < len(made.times) else float("inf")
        slack = max(0.06, min(end - begin, 1) + 0.01)
        if begin - slack <= at <= max(end, begin) + slack:
            return True
    times = expected.times
    if times is None:
        times = [i / FPS for i in range(len(expected.pictures))]
    offset = max(0.0, made.times[0])
    step = max(0.06, np.median(np.diff(times)) + 0.01) if len(times) > 1 else 0.06
    near = [i for i, t in enumerate(times) if t + offset <= at + step]
    until = [i for i, t in enumerate(times) if t + offset <= at - step]
    among = range(until[-1] if until else 0, (near[-1] if near else 0) + 1)
    return any(number_of(expected.pictures[i]) == number for i in among)
