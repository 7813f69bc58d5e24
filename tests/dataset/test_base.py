"""What sources, the registry and bad files say."""

import json

import pytest

from videomind.dataset.base import Source, get_source
from videomind.dataset.schema import Annotation
from videomind.dataset.views import Grounding


def test_unknown_name_gives_the_nearest():
    with pytest.raises(ValueError, match="Unknown data set 'charades'.*Did you mean 'charades_sta'"):
        get_source("charades")


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="'charades_sta'.*is taken by"):

        class Other(Source):
            names = {"charades_sta": Grounding}


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
