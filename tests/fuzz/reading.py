"""Reads mutated videos in a process of its own: what ends it, hangs it or fills the memory is seen.

`python tests/fuzz/reading.py FOLDER FIRST LAST` reads mutants FIRST to LAST - 1 of a folder's files; each is
named on standard output before it is read, with what came of it after.
"""

import json
import random
import resource
import sys
from pathlib import Path

from mutating import OF_VIDEOS, mutated

from videomind.roles import VisualBudget, VisualUnits
from videomind.video.excerpts import read_excerpt
from videomind.video.reader import BadVideoError
from videomind.video.request import Excerpt

UNITS = VisualUnits(token_side=16, frames_per_step=2)
BUDGET = VisualBudget(min_tokens=1, max_tokens=48, max_frames=16, fps=4.0, units=UNITS)
MEGABYTE = 1 << (10 if sys.platform == "linux" else 20)  # of the unit in which the system counts memory


def mutant(seeds: list[Path], index: int) -> tuple[Path, bytes]:
    """The index-th mutant of some files, and which it was made of."""
    rng = random.Random(index)
    seed = seeds[index % len(seeds)]
    return seed, mutated(seed.read_bytes(), rng, OF_VIDEOS)


def read(path: Path) -> str:
    """What comes of reading a file whole and in part: read or refused each, else an error and its class."""
    came = []
    for start, end in ((None, None), (0.3, 0.9)):
        excerpt = Excerpt(path=str(path), budget=BUDGET, start_s=start, end_s=end)
        try:
            frames = read_excerpt(excerpt).frames
            came.append("read" if len(frames) else "empty")
        except BadVideoError as error:
            came.append(
                "refused" if str(path) in str(error) or path.name in str(error) else f"unnamed: {error}"
            )
        except Exception as error:  # what must not be
            came.append(f"{type(error).__name__}: {error}")
    return ", ".join(came)


def main(folder: str, first: str, last: str) -> None:
    seeds = sorted(
        path for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith("mutant")
    )
    for index in range(int(first), int(last)):
        seed, data = mutant(seeds, index)
        path = Path(folder) / f"mutant{first}{seed.suffix}"
        path.write_bytes(data)
        said(index=index, seed=seed.name)
        came = read(path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MEGABYTE
        said(index=index, came=came, peak_mb=peak)
        path.unlink()


def said(**what) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
