"""Synthetic instructions: true answers, held-out videos and phrasings, no way around the video.

Covers `synthetic/instructions.py`.
"""

import json
import random
from collections import Counter

import pytest

from videomind.synthetic import annotations
from videomind.synthetic.annotations import make_instructions
from videomind.synthetic.instructions import instruction_texts, pairs_of
from videomind.synthetic.phrases import COLOURS, FLOORS, INSTRUCTIONS
from videomind.synthetic.scenes import instruction_scene
from videomind.video_chatgpt.convert import convert, read_question_answers


@pytest.fixture
def rendered(monkeypatch):
    """Write annotations only. Yields the scenes that would have been rendered, by their folder."""
    found = {}
    monkeypatch.setattr(annotations, "render_all", lambda scenes, to, **_: found.update({to.name: scenes}))
    return found


def read(root, name):
    return json.loads((root / "video_chatgpt" / name).read_text())


def test_answers_are_true(rendered, tmp_path):
    make_instructions(tmp_path, num_train=30, num_test=10)
    shown = {scene.vid: scene.events[0] for scenes in rendered.values() for scene in scenes}
    asked, told = read(tmp_path, "test_q.json"), read(tmp_path, "test_a.json")
    assert [row["question_id"] for row in asked] == [row["question_id"] for row in told]
    assert len({row["question_id"] for row in asked}) == len(asked) == 20
    rows = [(row["video_id"], row["q"], row["a"]) for row in read(tmp_path, "instructions.json")]
    rows += [(q["video_name"], q["question"], a["answer"]) for q, a in zip(asked, told, strict=True)]
    for vid, question, answer in rows:
        event = shown[vid]
        floor = "floor" in question.lower()
        assert answer == (f"The floor is {event.floor}." if floor else f"It is {event.colour}.")
        assert floor or not any(colour in question for colour in COLOURS)


def test_splits_share_no_video_and_no_phrasing(rendered, tmp_path):
    make_instructions(tmp_path, num_train=60, num_test=20)
    trained = {scene.vid for scene in rendered["videos"]}
    assert len(trained) == 60 and not trained & {scene.vid for scene in rendered["test_videos"]}
    assert {row["video_id"] for row in read(tmp_path, "instructions.json")} == trained
    for templates in INSTRUCTIONS.values():
        assert not set(templates["train"]) & set(templates["test"])


def test_where_the_video_stands_does_not_tell_the_kind_of_question(rendered, tmp_path):
    make_instructions(tmp_path, num_train=100, num_test=1)
    rows = convert(read_question_answers(tmp_path / "video_chatgpt/instructions.json"))
    texts = [row["conversations"][0]["value"] for row in rows]
    counts = Counter((text.startswith("<video>"), "floor" in text.lower()) for text in texts)
    assert min(counts.values()) > 70  # of 400


def test_seed_decides_and_finished_stays(rendered, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_instructions(tmp_path / name, num_train=4, num_test=2, seed=seed)
    assert read(tmp_path / "a", "instructions.json") == read(tmp_path / "b", "instructions.json")
    assert read(tmp_path / "a", "instructions.json") != read(tmp_path / "c", "instructions.json")
    with pytest.raises(ValueError, match="but what was made with"):
        make_instructions(tmp_path / "a", num_train=5, num_test=2)


def test_videos_lie_where_the_rows_say(tmp_path):
    make_instructions(tmp_path, num_train=2, num_test=1, workers=1)
    for folder, name, key in (
        ("videos", "instructions", "video_id"),
        ("test_videos", "test_q", "video_name"),
    ):
        stems = {path.stem for path in (tmp_path / "video_chatgpt" / folder).iterdir()}
        assert stems == {row[key] for row in read(tmp_path, f"{name}.json")}


def test_the_tokenizer_sees_all_of_training_and_every_answer():
    texts, rng = set(instruction_texts()), random.Random(0)
    for index in range(20):
        scene = instruction_scene(rng, index)
        (event,) = scene.events
        assert event.colour in COLOURS and event.floor in FLOORS and event.spans == ((0, scene.duration_s),)
        assert {text for pair in pairs_of(scene, "train", rng) for text in pair} <= texts
        assert {answer for _, answer in pairs_of(scene, "test", rng)} <= texts
