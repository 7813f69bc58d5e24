"""Speed of reading frames, against another checkout of this code.

    python benchmarks/decoding.py CHECKOUT [--rounds 6] [--seconds 20]

Videos are made: noise over a moving texture, in several sizes, codecs and containers. Two processes, one per
checkout, read the same frames in turn, each time from a newly opened file; the ratios are those of pairs.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import av
import numpy as np
from tabulate import tabulate

REPO = Path(__file__).parents[1]
FPS = 30
FILES = {
    "H.264 mp4": (".mp4", "libx264", {"preset": "veryfast"}),
    "H.264 mkv": (".mkv", "libx264", {"preset": "veryfast"}),
    "H.264 ts": (".ts", "libx264", {"preset": "veryfast"}),
    "HEVC mp4": (".mp4", "libx265", {"preset": "ultrafast", "x265-params": "log-level=error"}),
    "VP9 webm": (".webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "AV1 mp4": (".mp4", "libsvtav1", {"preset": "12"}),
}
SIZES = ((480, 272), (640, 360))
# What each process runs. Readers have been in two places.
WORKER = """
import json, sys, time
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import importlib.util
old = importlib.util.find_spec("videomind.dataset.video_readers") is not None
name = "videomind.dataset.video_readers" if old else "videomind.video.readers"
module = importlib.import_module(name)
open_reader = module.open_reader
print(json.dumps(module.__file__), flush=True)
for line in sys.stdin:
    path, lists = json.loads(line)
    start, cpu = time.perf_counter(), time.process_time()
    try:
        for indices in lists:
            with open_reader(path, "pyav") as reader:
                reader.get_frames(indices)
    except Exception as error:
        print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
    else:
        print(json.dumps([time.perf_counter() - start, time.process_time() - cpu]), flush=True)
"""


def write_video(path: Path, size: tuple[int, int], seconds: int, codec: str, options: dict) -> None:
    """Encode a moving texture under noise."""
    rng, (width, height) = np.random.default_rng(0), size
    texture = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(seconds * FPS):
            noise = rng.integers(-6, 6, texture.shape)
            picture = np.clip(np.roll(texture, (2 * i, 3 * i), (0, 1)) + noise, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def reads(total: int, rng: random.Random) -> Iterator[tuple[str, list[list[int]]]]:
    """Draw what is read of a file with `total` frames: kind, and lists of frames."""
    start = rng.randrange(total - 4 * FPS)
    yield "whole, 64 frames", [np.linspace(0, total - 1, 64).round().astype(int).tolist()]
    yield "4 s, 15 frames", [list(range(start, start + 4 * FPS, 8))] * 3
    yield "one frame", [[rng.randrange(total)] for _ in range(4)]


class Checkout:
    """A process that reads with the code of a checkout."""

    def __init__(self, folder: Path):
        env = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "SVT_LOG": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        if folder not in Path(home := json.loads(self._process.stdout.readline())).parents:
            raise RuntimeError(f"{folder} was to be compared, but {home} was imported")

    def read(self, path: Path, lists: list[list[int]]) -> tuple[float, float] | str:
        """Read frames. Returns: seconds, and seconds of processor time; or why it could not."""
        self._process.stdin.write(json.dumps([str(path), lists]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns: the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=6, help="the first one only warms up")
    parser.add_argument("--seconds", type=int, default=20, help="length of the videos")
    args = parser.parse_args(argv)
    other, own, rng = Checkout(args.checkout.absolute()), Checkout(REPO), random.Random(0)
    ratios, refused = defaultdict(list), Counter()
    with tempfile.TemporaryDirectory() as folder:
        videos = []
        for name, (suffix, codec, options) in FILES.items():
            for size in SIZES:
                videos.append((name, Path(folder) / f"{len(videos)}{suffix}"))
                write_video(videos[-1][1], size, args.seconds, codec, options)
        for number in range(args.rounds):
            for name, path in videos:
                for kind, lists in reads(args.seconds * FPS, rng):
                    pair = {side: side.read(path, lists) for side in ((other, own), (own, other))[number % 2]}
                    if isinstance(pair[own], str):
                        raise RuntimeError(f"{name}, {kind}: {pair[own]}")
                    if isinstance(pair[other], str):
                        refused[name, kind] += number > 0
                    elif number:
                        ratios[name, kind].append(
                            [a / b for a, b in zip(pair[other], pair[own], strict=True)]
                        )
    rows = [
        [*key, len(ratios[key]), refused[key], *map(median, zip(*ratios[key], strict=True))]
        for key in dict.fromkeys([*ratios, *refused])
    ]
    heads = ["file", "read", "pairs", "not read there", "speed (time)", "speed (processor)"]
    sys.stdout.write(tabulate(rows, headers=heads, floatfmt=".2f") + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
