"""The synthetic data on disk, in the real layouts of Charades-STA and QVHighlights.

    <root>/charades_sta/charades_sta_{train,test}.txt, durations.json
    <root>/qvhighlights/highlight_{train,val,test}_release.jsonl
    <root>/qvhighlights/truth/highlight_test_release.jsonl    # what the real release keeps to itself
    <root>/*/videos_3fps_480_noaudio/{vid}.mp4
    <root>/nextqa, nextgqa                                    # see questions.py
    <root>/video_chatgpt                                      # see instructions.py

The splits differ in videos and in phrasing. A data set's folder appears whole or not at all.
"""

import json
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from videomind.synthetic.folders import is_made, making
from videomind.synthetic.instructions import VIDEO_FOLDERS, write_instructions
from videomind.synthetic.phrases import sentence
from videomind.synthetic.questions import write_nextgqa, write_nextqa
from videomind.synthetic.render import render_all, renderers
from videomind.synthetic.scenes import (
    QVH_GRID_S,
    Event,
    Scene,
    charades_scene,
    instruction_scene,
    question_scene,
    qvhighlights_scene,
)

VIDEO_FOLDER = "videos_3fps_480_noaudio"
_VERSION = 2
_NUM_ANNOTATORS = 3

Splits = dict[str, list[Scene]]


def _draw_splits(make: Callable[[random.Random, int], Scene], counts: dict[str, int], seed: str) -> Splits:
    """Draw the scenes of all splits; a video belongs to one split only."""
    seen: set[str] = set()
    splits: Splits = {}
    for split, count in counts.items():
        rng = random.Random(f"{seed}/{split}")
        scenes = splits[split] = []
        while len(scenes) < count:
            scene = make(rng, len(scenes))
            if scene.vid not in seen:
                seen.add(scene.vid)
                scenes.append(scene)
    return splits


def _ask(rng: random.Random, split: str, event: Event) -> str:
    return sentence(rng, split=split, colour=event.colour, shape=event.shape, action=event.action)


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_charades(folder: Path, splits: Splits, seed: str) -> None:
    """Write `VID start end##sentence.` lines and the durations (s)."""
    for split, scenes in splits.items():
        rng = random.Random(f"{seed}/{split}/sentences")
        lines = [
            f"{scene.vid} {event.spans[0][0]} {event.spans[0][1]}##{_ask(rng, split, event)}.\n"
            for scene in scenes
            for event in scene.events
        ]
        (folder / f"charades_sta_{split}.txt").write_text("".join(lines), encoding="utf-8")
    durations = {s.vid: round(s.duration_s, 2) for scenes in splits.values() for s in scenes}
    (folder / "durations.json").write_text(json.dumps(durations, indent=1), encoding="utf-8")


def _qvhighlights_row(rng: random.Random, split: str, scene: Scene, event: Event, qid: int) -> dict[str, Any]:
    """Write a row of the release: windows (s), the 2-s clips they cover, three annotators' scores (0-4)."""
    spans = sorted(event.spans)
    clips = [clip for start, end in spans for clip in range(start // QVH_GRID_S, end // QVH_GRID_S)]
    query = _ask(rng, split, event)
    return {
        "qid": qid,
        "query": query[0].upper() + query[1:],
        "duration": round(scene.duration_s),
        "vid": scene.vid,
        "relevant_windows": [list(span) for span in spans],
        "relevant_clip_ids": clips,
        "saliency_scores": [[rng.randint(2, 4) for _ in range(_NUM_ANNOTATORS)] for _ in clips],
    }


def _write_qvhighlights(folder: Path, splits: Splits, seed: str) -> None:
    """Write the three release files; the test split's answers go to `truth/`."""
    qid = 0
    for split, scenes in splits.items():
        rng = random.Random(f"{seed}/{split}/sentences")
        rows = []
        for scene in scenes:
            for event in scene.events:
                qid += 1
                rows.append(_qvhighlights_row(rng, split, scene, event, qid))
        name = f"highlight_{'val' if split == 'valid' else split}_release.jsonl"
        if split == "test":
            _write_jsonl(folder / "truth" / name, rows)
            rows = [{key: row[key] for key in ("qid", "query", "duration", "vid")} for row in rows]
        _write_jsonl(folder / name, rows)


def _make(
    folder: Path,
    settings: dict[str, Any],
    splits: Splits,
    write: Callable,
    pool: ProcessPoolExecutor | None,
    video_folders: dict[str, str] | None = None,
) -> None:
    """Render and annotate one data set beside its place, then rename it.

    Args:
        folder: of the data set.
        settings: what it is made with.
        splits: the scenes of each.
        write: writes the annotations, of the folder, the splits and a seed.
        pool: of rendering processes.
        video_folders: split to the folder of its videos where that is not `VIDEO_FOLDER`; a split that is not
            there has its videos elsewhere.
    """
    if is_made(folder, settings, "data"):
        return
    scenes_in: dict[str, list[Scene]] = {}
    for split, scenes in splits.items():
        if video_folders is None or split in video_folders:
            name = VIDEO_FOLDER if video_folders is None else video_folders[split]
            scenes_in.setdefault(name, []).extend(scenes)
    with making(folder, settings) as partial:
        for name, scenes in scenes_in.items():
            (partial / name).mkdir()
            render_all(scenes, partial / name, pool=pool, name=folder.name)
        write(partial, splits, f"{folder.name}/{settings['seed']}")


def make_data(
    root: str | Path,
    *,
    num_train: int,
    num_valid: int,
    num_test: int,
    num_questioned: tuple[int, int] = (0, 0),
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Make the data sets; what is finished stays as it is. The same seed gives the same data.

    Args:
        root: the data root, as in `videomind`'s other data.
        num_train: videos per data set.
        num_valid: the same; Charades-STA has no such split.
        num_test: the same.
        num_questioned: videos with questions, for training (NExT-QA) and test (NExT-GQA); 0, 0: none.
        seed: of everything drawn.
        workers: rendering processes; None: one per core, at most 8.

    Raises:
        ValueError: a folder to write holds other data.
    """
    settings = {"version": _VERSION, "train": num_train, "valid": num_valid, "test": num_test, "seed": seed}
    counts = {"train": num_train, "valid": num_valid, "test": num_test}
    two = {"train": num_train, "test": num_test}
    root = Path(root)
    with renderers(workers) as pool:
        for name, make, numbers, write in (
            ("charades_sta", charades_scene, two, _write_charades),
            ("qvhighlights", qvhighlights_scene, counts, _write_qvhighlights),
        ):
            _make(root / name, settings, _draw_splits(make, numbers, f"{name}/{seed}"), write, pool)
        if any(num_questioned):
            _make_questions(root, num_questioned, seed, pool)


def _make_questions(root: Path, counts: tuple[int, int], seed: int, pool: ProcessPoolExecutor | None) -> None:
    """Make both data sets with questions; the videos of NExT-GQA lie in NExT-QA's folder."""
    train, test = counts
    settings = {"version": _VERSION, "train": train, "test": test, "seed": seed}
    splits = _draw_splits(question_scene, {"train": train, "test": test}, f"nextqa/{seed}")
    folders = {"train": "NExTVideo", "test": "videos"}
    _make(root / "nextqa", settings, splits, write_nextqa, pool, folders)
    _make(root / "nextgqa", settings, splits, write_nextgqa, pool, {})


def make_instructions(
    root: str | Path, *, num_train: int, num_test: int, seed: int = 0, workers: int | None = None
) -> None:
    """Make the instructions in `<root>/video_chatgpt`; finished ones stay. The same seed gives the same data.

    Args:
        root: the data root.
        num_train: videos.
        num_test: videos.
        seed: of everything drawn.
        workers: rendering processes; None: one per core, at most 8.

    Raises:
        ValueError: the folder holds other data.
    """
    counts = {"train": num_train, "test": num_test}
    splits = _draw_splits(instruction_scene, counts, f"video_chatgpt/{seed}")
    settings = {"version": _VERSION, **counts, "seed": seed}
    with renderers(workers) as pool:
        _make(Path(root) / "video_chatgpt", settings, splits, write_instructions, pool, VIDEO_FOLDERS)
