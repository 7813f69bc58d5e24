"""What tells results apart, and what does not."""

import os
from pathlib import Path

import pytest

from videomind.runs.identity import SMALL, differences, digest_of, files_of, located

ROW = {"video_path": "videos/a.mp4", "query": "a dog", "span": [[1.0, 2.5]]}


def test_files_are_known_by_content_or_by_size_and_time(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(SMALL + 1))
    (tmp_path / "train.log").write_text("no part of the model")
    before = files_of(tmp_path)
    assert before.keys() == {"config.json", "model.safetensors"}
    os.utime(tmp_path / "config.json", ns=(1, 1))
    assert files_of(tmp_path) == before
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))
    assert differences({"model": before}, {"model": files_of(tmp_path)}) == [
        "model: model.safetensors changed"
    ]


def test_a_file_of_the_hubs_cache_is_known_by_its_blob(tmp_path):
    names = []
    for cache in ("one", "two"):  # downloaded at another time
        blob = tmp_path / cache / "blobs/0a1b"
        blob.parent.mkdir(parents=True)
        blob.write_bytes(bytes(SMALL + 1))
        os.utime(blob, ns=(len(cache), len(names)))
        snapshot = tmp_path / cache / "snapshots/main"
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").symlink_to(blob)
        names.append(files_of(snapshot))
    assert names[0] == names[1] == {"model.safetensors": "0a1b"}


@pytest.mark.parametrize(
    "change",
    [
        {"query": "a cat"},
        {"span": [[1.0, 2.6]]},
        {"video_path": "videos/b.mp4"},
        {"video_path": ["videos/a.mp4"]},
    ],
    ids=str,
)
def test_another_row_is_another_digest(change):
    assert digest_of([ROW]) != digest_of([{**ROW, **change}])
    assert digest_of([ROW, ROW]) != digest_of([ROW])


def test_a_spelling_is_none(tmp_path, monkeypatch):
    (tmp_path / "videos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    spelt = ("videos/a.mp4", f"{tmp_path}/videos/a.mp4", "link/videos/../videos/a.mp4", "./videos//a.mp4")
    assert len({digest_of([{**ROW, "video_path": path}]) for path in spelt}) == 1
    moved = Path("elsewhere/videos")
    moved.mkdir(parents=True)
    in_place = digest_of([ROW], roots=["."])
    assert in_place == digest_of([{**ROW, "video_path": "elsewhere/videos/a.mp4"}], roots=["elsewhere"])


def test_what_moves_with_the_results_is_where_it_was(tmp_path):
    def place(project: str, results: str) -> dict[str, str]:
        return located(tmp_path / project / "data", tmp_path / results / "out")

    stored = {"data": place("a", "a")}
    assert not differences(stored, {"data": place("b", "b")})  # moved as a whole
    assert not differences(stored, {"data": place("a", "c")})  # the results alone
    assert differences(stored, {"data": place("b", "a")}) == [
        f"data was {tmp_path}/a/data, is {tmp_path}/b/data"
    ]


def test_values_are_shown():
    assert differences({"fps": 1.0, "same": 1}, {"fps": 2.0, "same": 1, "new": "x"}) == [
        "fps was 1.0, is 2.0",
        "new was None, is 'x'",
    ]
