"""Synthetic questions: read by the real loaders, answerable from the clip of the moment, held out."""

import json
import random
import re

import pytest

from videomind.backbones.registry import load_processor
from videomind.dataset.base import get_source
from videomind.dataset.making import planning_row
from videomind.encoding.encoder import Encoder
from videomind.synthetic import make_data, make_tiny_base
from videomind.synthetic.phrases import COLOURS, EVER, FLOOR, FLOORS, WHOLE
from videomind.synthetic.scenes import question_scene
from videomind.synthetic.warmup.data import NOTHING, Tasks, load_question_videos
from videomind.synthetic.warmup.loop import SMALL_BUDGET


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("questions") / "data"
    make_data(path, num_train=1, num_valid=1, num_test=1, num_questioned=(3, 2), workers=1)
    return path


def test_the_real_loaders_read_them(root):
    for name, split, count in (("nextqa", "train", 18), ("nextgqa", "test", 12)):
        source = get_source(name, root)
        loaded = source.load(split)
        assert len(loaded.annotations) == count and not loaded.dropped
        source.check_videos()
        for anno in loaded.annotations:
            assert anno.options["ABCDE".index(anno.ans)] == anno.answer
            names = FLOORS if anno.task == "TC" else EVER
            assert [option.lower() for option in anno.options] == list(names)
    for anno in get_source("nextgqa", root).load("test").annotations:
        ((start, end),) = anno.span
        assert (start, end) == (0, anno.duration) if anno.task == "DO" else end - start < 15


def test_a_clip_of_32_s_shows_one_event_only():
    for seed in range(50):
        scene = question_scene(random.Random(seed), 0)
        spans = sorted(event.spans[0] for event in scene.events)
        for i, (start, end) in enumerate(spans):
            low = min(max((start + end) / 2 - 16, 0), scene.duration_s - 32)
            others = spans[:i] + spans[i + 1 :]
            assert all(b <= low or a >= low + 32 for a, b in others)
        assert len({e.colour for e in scene.events}) == len({e.floor for e in scene.events}) == 3


def test_phrasings_are_held_out():
    for templates in (FLOOR, WHOLE):
        assert not set(templates["train"]) & set(templates["test"])


def test_rules_route_them(root):
    """What asks about the whole video is answered at once, the rest grounded by the event that it names."""
    for anno in get_source("nextqa", root).load("train").annotations:
        row = planning_row(anno)
        assert row["route"] == (4 if anno.task == "DO" else 1), anno.question
        if anno.task == "TC":
            assert set(row["query"].split()) & set(COLOURS) and "floor" not in row["query"]


def test_warm_up_tasks_are_answered_rightly(root, tmp_path):
    make_tiny_base(tmp_path / "base")
    encoder = Encoder(load_processor(tmp_path / "base"))
    videos = load_question_videos(root, encoder, budget=SMALL_BUDGET)
    assert len(videos) == 3
    tasks = Tasks([], random.Random(0), videos)
    for video in videos:
        assert len(video.floors) == 3 and set(video.colours) - {None, NOTHING} == set(video.floors)
    letters = set()
    for task in tasks.questions(100):
        colour = next(word for word in re.split(r"\W+", task.prompt) if word in COLOURS)
        options = dict(re.findall(r"\(([A-E])\) (.*)", task.prompt))
        (chosen,) = re.fullmatch(r"Best Option: \(([A-E])\)", task.start + task.reply).groups()
        letters.add(chosen)
        of = [v for v in videos if v.grid == task.grid]
        if "Yes" in options.values():
            assert any((options[chosen] == "Yes") == (colour in v.floors) for v in of)
        else:
            assert options[chosen].lower() in {v.floors.get(colour) for v in of}
            assert len(task.patches) <= 16
    assert len(letters) == 5
    for task in tasks.lists(20):
        named = task.prompt.removeprefix("As JSON: ").split("; ")
        assert [" ".join(step.values()) for step in json.loads(task.reply)] == named
    without = Tasks([], random.Random(0))
    assert without.questions(3) == without.lists(3) == []
