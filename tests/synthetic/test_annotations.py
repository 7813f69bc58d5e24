"""The synthetic data on disk: real layouts, disjoint splits, the same bytes for the same seed.

Covers `synthetic/folders.py` and `synthetic/phrases.py`.
"""

import random

import pytest

from videomind.dataset.base import get_source
from videomind.dataset.readers import read_rows
from videomind.synthetic import annotations
from videomind.synthetic.phrases import TEMPLATES, corpus
from videomind.synthetic.scenes import charades_scene, qvhighlights_scene


@pytest.fixture
def no_render(monkeypatch):
    """Write annotations only. Yields the scenes that would have been rendered."""
    rendered = []
    monkeypatch.setattr(annotations, "render_all", lambda scenes, *_, **__: rendered.extend(scenes))
    return rendered


def files(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_seed_decides_every_byte(tmp_path, no_render):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        annotations.make_data(tmp_path / name, num_train=20, num_valid=5, num_test=5, seed=seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")
    third = len(no_render) // 3
    assert no_render[:third] == no_render[third : 2 * third]


def test_splits_share_no_video_and_no_sentence(tmp_path, no_render):
    annotations.make_data(tmp_path, num_train=60, num_valid=20, num_test=20, seed=0)
    for name, splits in (("charades_sta", ("train", "test")), ("qvhighlights", ("train", "valid", "test"))):
        loaded = [get_source(name, tmp_path).load(split).annotations for split in splits]
        for field in ("video_path", "query"):
            values = [{getattr(a, field).lower() for a in split} for split in loaded]
            assert sum(map(len, values)) == len(set.union(*values)), field
    sentences = [set(corpus(split)) for split in TEMPLATES]
    assert sum(map(len, sentences)) == len(set.union(*sentences))


def test_rates_and_sizes(tmp_path, no_render):
    annotations.make_data(tmp_path, num_train=12, num_valid=3, num_test=3, seed=0)
    for scenes in (no_render[:12], no_render[12:15], no_render[15:27], no_render[27:30], no_render[30:]):
        assert {round(float(s.rate), 2) for s in scenes} == {3, 25, 29.97}
    sizes = {(s.width, s.height) for s in no_render}
    assert any(w < h for w, h in sizes) and any(w > h for w, h in sizes)
    assert any(w % 28 or h % 28 for w, h in sizes)


@pytest.mark.parametrize("plan", [charades_scene, qvhighlights_scene])
def test_events_fit_and_do_not_overlap(plan):
    rng = random.Random(0)
    for index in range(300):
        scene = plan(rng, index)
        spans = sorted(w for event in scene.events for w in event.spans)
        assert spans[0][0] >= 0 and spans[-1][1] <= scene.duration_s + 0.05
        assert all(a[1] < b[0] for a, b in zip(spans, spans[1:], strict=False))
        assert len({event.colour for event in scene.events}) == len(scene.events) >= 2
        assert 20 - 0.5 <= scene.duration_s <= 150


def test_real_loaders_read_the_files(synthetic_root):
    charades = get_source("charades_sta", synthetic_root)
    highlights = get_source("qvhighlights", synthetic_root)
    for source, split in (
        (charades, "train"),
        (charades, "test"),
        (highlights, "train"),
        (highlights, "valid"),
    ):
        loaded = source.load(split)
        assert not loaded.dropped
        for a in loaded.annotations:
            assert all(0 <= s < e <= a.duration + 0.1 for s, e in a.span)
    source_videos = (synthetic_root / "charades_sta/videos_3fps_480_noaudio").glob("*.mp4")
    assert len(list(source_videos)) == 3 + 1
    assert all(len(a.span) == 1 for a in charades.load("train").annotations)


def test_highlights_rows_have_the_release_fields(synthetic_root):
    folder = synthetic_root / "qvhighlights"
    rows = list(read_rows(folder / "highlight_train_release.jsonl"))
    for row in rows:
        clips = [c for s, e in row["relevant_windows"] for c in range(s // 2, e // 2)]
        assert row["relevant_clip_ids"] == clips
        assert len(row["saliency_scores"]) == len(clips)
        assert all(len(scores) == 3 and all(0 <= x <= 4 for x in scores) for scores in row["saliency_scores"])
        assert all(t % 2 == 0 for window in row["relevant_windows"] for t in window)
    test = list(read_rows(folder / "highlight_test_release.jsonl"))
    truth = list(read_rows(folder / "truth/highlight_test_release.jsonl"))
    assert all(set(row) == {"qid", "query", "duration", "vid"} for row in test)
    assert [r["qid"] for r in test] == [r["qid"] for r in truth] and all(r["relevant_windows"] for r in truth)


def test_finished_data_stays_and_other_data_is_refused(tmp_path, no_render):
    settings = {"num_train": 3, "num_valid": 1, "num_test": 1}
    annotations.make_data(tmp_path, **settings)
    count = len(no_render)
    annotations.make_data(tmp_path, **settings)
    assert len(no_render) == count
    with pytest.raises(ValueError, match="but what was made with"):
        annotations.make_data(tmp_path, **settings, seed=9)
    real = tmp_path / "real" / "charades_sta"
    real.mkdir(parents=True)
    with pytest.raises(ValueError, match="not synthetic"):
        annotations.make_data(tmp_path / "real", **settings)
    assert list(real.iterdir()) == []


def test_nothing_is_left_half_made(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(annotations, "render_all", fail)
    with pytest.raises(OSError):
        annotations.make_data(tmp_path, num_train=1, num_valid=1, num_test=1)
    assert not (tmp_path / "charades_sta").exists()
