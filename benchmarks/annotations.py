"""Loading the annotations of a training set as large as the published one: 481,000.

    python benchmarks/annotations.py [--scale 1.0]

Writes made-up annotation files in the formats of the published mixture (grounder 210,000, verifier
232,000, planner 39,000), loads them for the first time and from the cache, and compares `__getitem__` and
the memory of loader workers with a set of 1,000. The memory of a worker is its unique set size (USS), after
it has drawn from all over the set.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from tabulate import tabulate
from torch.utils.data import DataLoader, get_worker_info

from videomind.dataset.filters import Filters
from videomind.train.mixture import Draw, Mixture

# Records per data set, about as the published mixture divides them.
SIZES = {
    "qvhighlights": 7_000,
    "didemo": 33_000,
    "tacos": 9_000,
    "cosmo_cap": 87_000,
    "internvid_vtime": 70_000,
    "hirest_step": 4_000,
    "qvhighlights_verify_2b": 36_000,
    "didemo_verify_2b": 150_000,
    "tacos_verify_2b": 46_000,
    "mixed_planning": 39_000,
}
FILTERS = Filters(min_video_len=5, max_video_len=500, max_num_words=200)
WORDS = (
    "a",
    "the",
    "man",
    "woman",
    "dog",
    "cuts",
    "opens",
    "door",
    "while",
    "another",
    "at",
    "before",
    "red",
)
VIDEOS = "videos_3fps_480_noaudio"
CANDIDATES = 5
STEPS = 4


class Rows:
    """Made-up rows. Args: seed."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)

    def query(self) -> str:
        """Five to twenty words."""
        return " ".join(self.rng.choices(WORDS, k=self.rng.randint(5, 20))) + "."

    def vid(self) -> str:
        """Eleven characters."""
        return f"{self.rng.getrandbits(44):011x}"

    def span(self, duration: float) -> list[float]:
        """A moment within a video."""
        return sorted(round(self.rng.uniform(0, duration), 2) for _ in range(2))

    def moment(self) -> dict:
        """Video, duration, query and span."""
        duration = round(self.rng.uniform(10, 400), 3)
        span = self.span(duration)
        return {"vid": self.vid(), "duration": duration, "query": self.query(), "span": span}


def write_data(root: Path, sizes: dict[str, int]) -> None:
    """Write annotation files and the videos' names."""
    rows = Rows(0)
    lines: dict[str, Iterator[dict]] = {
        "qvhighlights/highlight_train_release.jsonl": (
            {**row, "qid": i, "relevant_windows": [row.pop("span")]}
            for i, row in enumerate(rows.moment() for _ in range(sizes["qvhighlights"]))
        ),
        "tacos/train.jsonl": (
            {**row, "relevant_windows": [row.pop("span")]}
            for row in (rows.moment() for _ in range(sizes["tacos"]))
        ),
        "cosmo_cap/anno_cosmo_cap.jsonl": (rows.moment() for _ in range(sizes["cosmo_cap"])),
        "internvid_vtime/anno_internvid_vtime_query_gpt4o_mini.jsonl": (
            rows.moment() for _ in range(sizes["internvid_vtime"])
        ),
        "planning/planning_nextqa_qvhighlights_gpt4o_mini.jsonl": (
            {
                **{"source": "nextqa", "data_type": "multimodal", "duration": 60.0},
                **{"video_path": f"data/nextqa/{rows.vid()}.mp4", "route": rows.rng.randint(1, 4)},
                **{"question": rows.query(), "query": rows.query()},
            }
            for _ in range(sizes["mixed_planning"])
        ),
    }
    for name, items in lines.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(json.dumps(item) + "\n" for item in items))
    didemo = [
        {"video": f"{rows.vid()}.avi", "times": [[1, 2], [1, 1], [2, 3], [0, 1]], "description": rows.query()}
        for _ in range(sizes["didemo"])
    ]
    write_json(root / "didemo/train_data.json", didemo)
    write_json(root / "didemo/durations.json", {row["video"].split(".")[0]: 29.5 for row in didemo})
    how_to: dict[str, dict] = {}
    for i in range(sizes["hirest_step"] // STEPS):
        steps = [{"heading": rows.query(), "absolute_bounds": [4 * k, 4 * k + 4]} for k in range(STEPS)]
        video = {"relevant": True, "clip": True, "v_duration": 90, "bounds": [0, 16], "steps": steps}
        how_to[f"make {i}"] = {f"{rows.vid()}.mp4": video}
    write_json(root / "hirest/all_data_train.json", how_to)
    for name in ("qvhighlights", "didemo", "tacos"):
        judged = []
        for row in (rows.moment() for _ in range(sizes[f"{name}_verify_2b"] // CANDIDATES)):
            pred = [rows.span(row["duration"]) for _ in range(CANDIDATES)]
            path = f"data/{name}/{VIDEOS}/{row.pop('vid')}.mp4"
            judged.append({**row, "video_path": path, "span": [row["span"]], "pred": pred})
        write_json(root / f"verifying/verifying_{name}_2b.json", judged)
    touch_videos(root, how_to)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def touch_videos(root: Path, how_to: dict[str, dict]) -> None:
    """Empty files where a data set wants its folder, or leaves out what is not there."""
    for name in ("qvhighlights", "tacos", "cosmo_cap", "didemo"):
        (root / name / VIDEOS).mkdir(parents=True, exist_ok=True)
    folders = {
        "hirest": (VIDEOS, [name for videos in how_to.values() for name in videos]),
        "internvid_vtime": ("videos_crop_3fps_480_noaudio", []),
    }
    with open(root / "internvid_vtime/anno_internvid_vtime_query_gpt4o_mini.jsonl") as file:
        folders["internvid_vtime"][1].extend(f"{json.loads(line)['vid']}.mp4" for line in file)
    for name, (folder, files) in folders.items():
        (root / name / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            (root / name / folder / file).touch()


class Drawing(Mixture):
    """A mixture whose items are annotations, so that neither decoding nor tokenizing is measured."""

    def __getitem__(self, draw: Draw | int) -> int:
        """Build an annotation and its sample. Returns: the worker's USS in bytes."""
        index, epoch = draw if isinstance(draw, tuple) else (draw, 0)
        part, anno = self.annotation(index, epoch)
        part.view.sample(anno, random.Random(index))
        if get_worker_info() is None or index % 500:
            return 0
        return psutil.Process().memory_full_info().uss


def load(root: Path, names: str) -> tuple[Drawing, float]:
    """Load a mixture. Returns: it, and the seconds that took, statistics included."""
    start = time.perf_counter()
    mixture = Drawing(names, encoder=None, data_root=root, filters=FILTERS)
    mixture.statistics()
    return mixture, time.perf_counter() - start


def item_us(mixture: Drawing, draws: int = 20_000) -> float:
    """Microseconds of one item, drawn from all over."""
    rng = random.Random(1)
    order = [rng.randrange(len(mixture)) for _ in range(draws)]
    start = time.perf_counter()
    for index in order:
        mixture[index]
    return (time.perf_counter() - start) / draws * 1e6


def worker_uss(mixture: Drawing, workers: int = 4, draws: int = 40_000) -> float:
    """Largest USS of a loader worker, MB."""
    rng = random.Random(2)
    order = [rng.randrange(len(mixture)) for _ in range(draws)]
    loader = DataLoader(mixture, batch_size=100, sampler=order, num_workers=workers, collate_fn=max)
    return max(loader) / 1e6


def measure(root: Path, sizes: dict[str, int]) -> list:
    """One row of the table."""
    write_data(root, sizes)
    names = ",".join(sizes)
    _, first = load(root, names)
    mixture, cached = load(root, names)
    return [len(mixture), first, cached, item_us(mixture), worker_uss(mixture)]


def main() -> int:
    """Print the table. Returns: the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the published size")
    args = parser.parse_args()
    rows = []
    for scale in (1_000 / sum(SIZES.values()), args.scale):
        sizes = {name: max(int(size * scale), 2 * CANDIDATES) for name, size in SIZES.items()}
        with tempfile.TemporaryDirectory() as folder:
            os.environ["VIDEOMIND_CACHE"] = str(Path(folder, "cache"))
            rows.append(measure(Path(folder, "data"), sizes))
    headers = ["annotations", "first load (s)", "from cache (s)", "item (us)", "worker USS (MB)"]
    sys.stdout.write(tabulate(rows, headers=headers, floatfmt=(",.0f", ".2f", ".2f", ".1f", ".1f")) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
