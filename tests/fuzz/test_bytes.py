"""Mutated video files: read or refused by name, never a bare exception, a hang or a gigabyte.

VIDEOMIND_FUZZ=50000 reads so many mutants; a few hundred by default.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from helpers.runs import REPO, environment
from helpers.videos import numbered
from PIL import Image
from videos.making import whole

COUNT = int(os.environ.get("VIDEOMIND_FUZZ", 240))
PATIENCE_S = 120  # for one file on a busy machine; a whole one takes a tenth of a second
MOST_MB = 1000  # beyond what the imports take
KINDS = (
    *("h264 mp4", "h264 mkv", "h264 ts", "h264 flv", "h264 avi", "hevc mp4", "vp8 webm", "vp9 hidden webm"),
    *("av1 mp4", "mpeg4 b avi", "mjpeg avi", "with sound mp4"),
)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> Path:
    """A folder of whole files of many kinds, and of broken ones that were seen."""
    folder = tmp_path_factory.mktemp("seeds")
    for name in KINDS:
        try:
            whole(folder, name)
        except ValueError:  # this PyAV cannot write it
            continue
    pictures = [Image.fromarray(numbered(i)) for i in range(6)]
    for suffix in ("gif", "webp", "png", "jpg", "tiff"):
        more = {"save_all": True, "append_images": pictures[1:]} if suffix in ("gif", "webp", "tiff") else {}
        pictures[0].save(folder / f"pictures.{suffix}", **more)
    return folder


def lines_of(process: subprocess.Popen) -> queue.Queue:
    """The lines a process writes, as they come; None at their end."""
    lines: queue.Queue = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            lines.put(json.loads(line))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def run(folder: Path, first: int, last: int) -> tuple[Counter, list[str], int]:
    """Read mutants; one that ends or hangs the process is named, and the next process goes on behind it.

    Returns:
        How often files were read and refused, what must not be, and the highest peak of memory, MB.
    """
    came, wrong, peak = Counter(), [], 0
    while first < last:
        command = [sys.executable, str(REPO / "tests/fuzz/reading.py"), str(folder), str(first), str(last)]
        with subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            lines, name, base = lines_of(process), f"mutant {first}", None
            while (line := next_line(lines, process, name, wrong)) is not None:
                name, first = f"mutant {line['index']} of {line.get('seed', '?')}", line["index"] + 1
                if "came" in line:
                    words = line["came"].split(", ")
                    base = base or line["peak_mb"]
                    peak = max(peak, line["peak_mb"] - base)
                    came.update(words)
                    if set(words) - {"read", "refused"}:
                        wrong.append(f"{name}: {line['came']}")
        if process.returncode and first < last:
            wrong.append(f"{name} ended its process ({process.returncode})")
    return came, wrong, peak


def next_line(lines: queue.Queue, process: subprocess.Popen, name: str, wrong: list[str]):
    try:
        return lines.get(timeout=PATIENCE_S)
    except queue.Empty:
        wrong.append(f"{name} hangs")
        process.kill()
        return None


def test_mutated_files_are_read_or_refused_by_name(seeds):
    came, wrong, peak = run(seeds, 0, COUNT)
    assert wrong == []
    assert peak < MOST_MB
    assert came["read"] > COUNT // 4 and came["refused"] > COUNT // 10, came  # the mutations do something
