"""What the warm-up learns from: the training videos' steps, each with the colour seen in it.

Only training rows are read; test videos, phrasings and answers never enter.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from videomind.synthetic.annotations import VIDEO_FOLDER
from videomind.synthetic.phrases import COLOURS

STEP_FRAMES = 2  # frames per temporal step of Qwen2-VL
NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class Query:
    """A training query: its text, the colour it names and its windows [start, end], s."""

    text: str
    colour: str
    windows: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class WarmupVideo:
    """A training video in memory.

    Attributes: frames (N, 3, H, W), uint8, an even number; queries; colours, per temporal step the colour
    seen all through it, NOTHING between events, or None where an event starts or ends.
    """

    frames: Tensor
    queries: list[Query]
    colours: list[str | None]

    def clip(self, start: int, length: int) -> Tensor:
        """Frames of `length` temporal steps from step `start` on."""
        return self.frames[start * STEP_FRAMES : (start + length) * STEP_FRAMES]


def _colour(text: str) -> str:
    """The colour a query names."""
    return next(word for word in text.lower().replace(".", "").split() if word in COLOURS)


def read_train_rows(root: Path) -> dict[Path, list[Query]]:
    """The training rows of both data sets, grouped by video file."""
    rows: list[tuple[Path, str, list[list[float]]]] = []
    folder = root / "charades_sta"
    for line in (folder / "charades_sta_train.txt").read_text(encoding="utf-8").splitlines():
        place, text = line.split("##")
        vid, start, end = place.split()
        rows.append((folder / VIDEO_FOLDER / f"{vid}.mp4", text.strip("."), [[float(start), float(end)]]))
    folder = root / "qvhighlights"
    for line in (folder / "highlight_train_release.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows.append((folder / VIDEO_FOLDER / f"{row['vid']}.mp4", row["query"], row["relevant_windows"]))
    queries: dict[Path, list[Query]] = {}
    for path, text, windows in rows:
        query = Query(text=text, colour=_colour(text), windows=windows)
        queries.setdefault(path, []).append(query)
    return queries


def _step_colour(start_s: float, end_s: float, queries: list[Query]) -> str | None:
    """The colour seen all through a time, NOTHING, or None if it changes."""
    for query in queries:
        for start, end in query.windows:
            if start <= start_s and end_s <= end:
                return query.colour
            if start < end_s and start_s < end:
                return None
    return NOTHING


def load_videos(root: Path, *, limit: int, seed: int) -> list[WarmupVideo]:
    """Decode training videos as the grounder will see them. Args: limit, videos at most."""
    grouped = read_train_rows(root)
    paths = sorted(grouped)
    random.Random(seed).shuffle(paths)
    videos = []
    for path in tqdm(paths[:limit], desc="warm-up videos", unit="video"):
        frames, times = read_frames(path)
        spacing = times[1] - times[0]
        edges = [(times[i], times[i + 1]) for i in range(0, len(times), STEP_FRAMES)]
        colours = [_step_colour(a, b + spacing / 4, grouped[path]) for a, b in edges]
        videos.append(WarmupVideo(frames=frames, queries=grouped[path], colours=colours))
    return videos
