"""What a person sees of a workflow: how long it will take, where it is, and how it goes on.

On a terminal the line of a running step is rewritten; elsewhere each step is one line when it starts.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from videomind.runs.cores import usable_cores

_PERCENT = re.compile(rb"(\d{1,3})%\|")  # as tqdm writes it
_TAIL_BYTES = 4096
_LOOP, _LOOP_S = 1_000_000, 0.042  # a loop, and its seconds on the machine that expected times are from
_ENOUGH_S = 20  # of expected time that must have passed before the machine's own pace counts


@dataclass(kw_only=True)
class Screen:
    """Says what a workflow does.

    Attributes:
        say: prints a line.
        rewrite: prints a text that the next one replaces; None where there is no terminal.
        pace: seconds here for each expected one.
        remaining_s: expected seconds of all steps that are still to be done, the running one too.
        start: when it began, s of the monotonic clock.
    """

    say: Callable[[str], None]
    rewrite: Callable[[str], None] | None = None
    pace: float = 1.0
    remaining_s: float = 0.0
    start: float = field(default_factory=lambda: time.monotonic())
    _expected_s: float = 0.0
    _title: str = ""
    _began: float = 0.0
    _passed_s: float = 0.0  # expected seconds of what was done in this run
    _took_s: float = 0.0  # and what they took

    def begin(self, expected: Sequence[float]) -> None:
        """Say how long all will take.

        Args:
            expected: of each step to do, s on the machine that expected times are from.
        """
        self.remaining_s = sum(expected)
        if self.remaining_s:
            self.say(f"About {in_words(self.remaining_s * self.pace)} on this machine.")

    def step(self, title: str, expected_s: float) -> None:
        """Say which step begins."""
        self._title, self._expected_s, self._began = title, expected_s, time.monotonic()
        line = f"{self._clock()} {title}"
        if self.rewrite:
            self.rewrite(line)
        else:
            about = f" (about {in_words(expected_s * self.pace)})" if expected_s else ""
            self.say(line + about)

    def progress(self, percent: int | None) -> None:
        """Say how far the running step is.

        Args:
            percent: of its present part; None where nothing tells.
        """
        if not self.rewrite:
            return
        done = "" if percent is None else f" {percent} %,"
        took = time.monotonic() - self._began
        left = self.remaining_s * self.pace - took
        rest = f"; all done in {in_words(left)}" if left > 0 else ""
        self.rewrite(f"{self._clock()} {self._title}:{done} {took:.0f} s{rest}")

    def end(self) -> None:
        """Say that the running step is done."""
        took = time.monotonic() - self._began
        if self.rewrite:
            self.rewrite("")
            self.say(f"{self._clock()} {self._title}: {took:.0f} s")
        self.remaining_s -= self._expected_s
        self._passed_s, self._took_s = self._passed_s + self._expected_s, self._took_s + took
        if self._passed_s >= _ENOUGH_S:
            self.pace = self._took_s / self._passed_s

    def skip(self, title: str) -> None:
        """Say that a step was done before."""
        self.say(f"{self._clock()} {title}: done already")

    def finish(self) -> None:
        """Say that all is done."""
        self.say(f"\n{self._clock()} Done")

    def _clock(self) -> str:
        return f"[{time.monotonic() - self.start:4.0f} s]"


def in_words(seconds: float) -> str:
    """Write a time as people say it: in whole seconds, tens of them, or minutes."""
    if seconds < 10:
        return f"{max(round(seconds), 1)} s"
    if seconds < 90:
        return f"{round(seconds / 10) * 10} s"
    return f"{round(seconds / 60)} minutes"


def pace_here() -> float:
    """Compare this machine with the one that expected times are from, by a short loop and its cores."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        total = 0
        for i in range(_LOOP):
            total += i * i
        times.append(time.perf_counter() - began)
    return min(times) / _LOOP_S * (1.0 if usable_cores() > 1 else 1.8)


def percent_of(log: Path) -> int | None:
    """Read how far the last progress bar of a log is; None where there is none near its end."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            percents = _PERCENT.findall(file.read())
    except FileNotFoundError:
        return None
    return int(percents[-1]) if percents else None
