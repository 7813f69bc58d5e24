"""Synthetic questions on disk, in the real layouts of NExT-QA (training) and NExT-GQA (evaluation).

    <root>/nextqa/train.csv, map_vid_vidorID.json, NExTVideo/{vid}.mp4
    <root>/nextqa/videos/{vid}.mp4                      # those of NExT-GQA
    <root>/nextqa/truth/train.json                      # what is seen where, for the warm-up
    <root>/nextgqa/test.csv, gsub_test.json, map_vid_vidorID.json

Half of the questions ask for the floor under one event, which an excerpt of its moment shows at a glance;
the others whether something is seen at all, which is a question about the whole video.
"""

import csv
import json
import random
from pathlib import Path

from videomind.synthetic.phrases import ACTIONS, COLOURS, EVER, FLOORS, SHAPES, question
from videomind.synthetic.scenes import Event, Scene

COLUMNS = ("qid", "question", "a0", "a1", "a2", "a3", "a4", "answer", "type")
FLOOR_TYPE, WHOLE_TYPE = "TC", "DO"  # NExT-QA's names: temporal, descriptive
TRUTH = "truth/train.json"


def rows_of(scene: Scene, split: str, rng: random.Random) -> list[tuple[dict[str, str], Event | None]]:
    """Ask about a video: a question per event, each with that event, and as many about the whole."""
    rows: list[tuple[dict[str, str], Event | None]] = []
    seen = [event.colour for event in scene.events]
    for event in scene.events:
        about = {"colour": event.colour, "shape": event.shape, "action": event.action}
        text = question(rng, kind="floor", split=split, **about)
        rows.append((_row(len(rows), text, tuple(FLOORS), event.floor, FLOOR_TYPE), event))
        is_shown = rng.random() < 0.5
        colour = rng.choice(seen if is_shown else [c for c in COLOURS if c not in seen])
        about = {"colour": colour, "shape": rng.choice(SHAPES), "action": rng.choice(list(ACTIONS))}
        text = question(rng, kind="whole", split=split, **about)
        rows.append((_row(len(rows), text, EVER, EVER[0] if is_shown else EVER[1], WHOLE_TYPE), None))
    return rows


def _row(qid: int, text: str, options: tuple[str, ...], answer: str, kind: str) -> dict[str, str]:
    choices = {f"a{i}": option for i, option in enumerate(options)}
    return {"qid": str(qid), "question": text, **choices, "answer": answer, "type": kind}


def _write_csv(path: Path, id_column: str, rows: list[dict[str, str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, (id_column, *COLUMNS))
        writer.writeheader()
        writer.writerows(rows)


def write_nextqa(folder: Path, splits: dict[str, list[Scene]], seed: str) -> None:
    """Write the training questions; answers are positions, and there are no moments."""
    rng = random.Random(f"{seed}/questions")
    rows = []
    for scene in splits["train"]:
        for row, _ in rows_of(scene, "train", rng):
            options = [row[f"a{i}"] for i in range(5)]
            rows.append({"video": scene.vid, **row, "answer": str(options.index(row["answer"]))})
    _write_csv(folder / "train.csv", "video", rows)
    _write_map(folder, splits["train"])
    truth = {
        scene.vid: [{"window": e.spans[0], "colour": e.colour, "floor": e.floor} for e in scene.events]
        for scene in splits["train"]
    }
    (folder / TRUTH).parent.mkdir()
    (folder / TRUTH).write_text(json.dumps(truth), encoding="utf-8")


def write_nextgqa(folder: Path, splits: dict[str, list[Scene]], seed: str) -> None:
    """Write the evaluation questions with their moments; a question about the whole has the whole as its."""
    rng = random.Random(f"{seed}/questions")
    rows, videos = [], {}
    for scene in splits["test"]:
        location = {}
        for row, event in rows_of(scene, "test", rng):
            rows.append({"video_id": scene.vid, **row})
            location[row["qid"]] = [list(event.spans[0] if event else (0, scene.duration_s))]
        videos[scene.vid] = {"duration": scene.duration_s, "location": location, "fps": float(scene.rate)}
    _write_csv(folder / "test.csv", "video_id", rows)
    (folder / "gsub_test.json").write_text(json.dumps(videos), encoding="utf-8")
    (folder / "gsub_val.json").write_text("{}", encoding="utf-8")
    _write_map(folder, splits["test"])


def _write_map(folder: Path, scenes: list[Scene]) -> None:
    stems = {scene.vid: scene.vid for scene in scenes}
    (folder / "map_vid_vidorID.json").write_text(json.dumps(stems), encoding="utf-8")
