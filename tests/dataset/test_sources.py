"""Sources against the original's annotations, and what the registry and bad files say."""

import json

import pytest
from goldens import golden_manifest

from videomind.dataset.base import Source, get_source, parse_names, source_names
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Grounding

# What differs from the original on purpose: (name, split) -> the fix.
FIXED_SPLITS = {("charades_sta", "valid"): "33 to 36: an undeclared split is an error, not the last file"}
CASES = [
    (case["inputs"]["dataset"], case["inputs"]["split"], case["outputs"])
    for case in golden_manifest("datasets")["cases"]
    if isinstance(case["inputs"], dict) and case["inputs"].get("dataset") in source_names()
]


@pytest.mark.golden
@pytest.mark.parametrize(("name", "split", "expected"), CASES, ids=[f"{n}.{s}" for n, s, _ in CASES])
def test_annotations(golden, monkeypatch, name, split, expected):
    monkeypatch.chdir(golden.root / "datasets")
    source = get_source(name)
    if expected.endswith(".error.json") or (name, split) in FIXED_SPLITS:
        with pytest.raises(ValueError, match=f"{name} has no split '{split}'. Allowed: "):
            source.load(split)
        return
    rows = golden.json(f"datasets/{expected}")
    annotations = source.load(split).annotations
    ours = [anno.to_dict() for anno in annotations]
    assert ours == [{k: v for k, v in row.items() if v is not None} for row in rows]
    assert len(ours) == len(rows) > 0


def test_unknown_name_gives_the_nearest():
    with pytest.raises(ValueError, match="Unknown data set 'charades'.*Did you mean 'charades_sta'"):
        get_source("charades")


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="'charades_sta'.*is taken by"):

        class Other(Source):
            names = {"charades_sta": Grounding}


def test_names_are_trimmed_and_required():
    assert parse_names(" a, b ,") == ["a", "b"]
    with pytest.raises(ValueError, match="No data set given"):
        parse_names(" , ")


@pytest.fixture
def charades(tmp_path):
    folder = tmp_path / "charades_sta"
    folder.mkdir()
    (folder / "durations.json").write_text(json.dumps({"A": 10.0, "B": float("nan")}))

    def write(text: str):
        (folder / "charades_sta_train.txt").write_text(text)
        return get_source("charades_sta", tmp_path)

    return write


def test_dropped_rows_are_counted_with_their_reason(charades):
    loaded = charades("A 1 2##x.\nC 1 2##y.\nB 1 2##z.\nA 1 nan##w.\nA 1 2## . \n").load("train")
    assert [anno.query for anno in loaded.annotations] == ["x"]
    assert loaded.num_rows == 5
    assert dict(loaded.dropped) == {
        "no entry in the durations file": 1,
        "duration is not a positive number": 1,
        "span is not a number": 1,
        "empty query": 1,
    }


def test_a_row_of_another_shape_names_file_and_row(charades):
    with pytest.raises(ValueError, match=r"charades_sta_train\.txt, row 2, does not fit charades_sta"):
        charades("A 1 2##x.\nA 1 2 x.\n").load("train")


def test_missing_video_folder_says_where_to_put_it(charades, tmp_path):
    with pytest.raises(ValueError, match="No video folder .*videos_3fps_480_noaudio for charades_sta"):
        charades("A 1 2##x.\n").check_videos()


def test_a_made_up_source_takes_one_class(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"video": "v", "text": "A dog.", "from": 1, "to": 2}\n')

    class Mine(Source):
        names = {"mine_for_the_test": Grounding}
        splits = {"train": "mine.jsonl"}
        video_root = "videos"

        def parse(self, row, split):
            return Annotation(
                source=self.name,
                video_path=self.video_path(row["video"]),
                duration=5.0,
                query=row["text"],
                span=[[row["from"], row["to"]]],
            )

    loaded = get_source("mine_for_the_test", tmp_path).load()
    assert loaded.annotations[0].video_path == f"{tmp_path}/videos/v.mp4"
