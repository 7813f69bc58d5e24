"""What sources, the registry and bad files say."""

import json
from pathlib import Path

import pytest

from videomind.dataset import sub_classes
from videomind.dataset.base import Source, get_source
from videomind.dataset.parts import Entry, load_part
from videomind.dataset.schema import Annotation
from videomind.dataset.statistics import statistics
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


def test_a_made_up_source_takes_one_class(tmp_path, own_registry):
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


GOOD = {"vid": "s1", "qid": 7, "duration": 90, "query": "cut leek", "relevant_windows": [[3, 8]]}


def tacos_row(**changes) -> str:
    row = {**GOOD, **changes}
    return json.dumps({k: v for k, v in row.items() if v is not ...}) + "\n"


# What is broken: how train.jsonl of TACoS looks, and the drop's reason or the start of the error.
BROKEN_ROWS = {
    "empty query": (tacos_row(query=" . "), "empty query"),
    "NaN duration": (tacos_row(duration=float("nan")), "duration is not a positive number"),
    "infinite duration": (tacos_row(duration=float("inf")), "duration is not a positive number"),
    "zero duration": (tacos_row(duration=0), "duration is not a positive number"),
    "negative duration": (tacos_row(duration=-3), "duration is not a positive number"),
    "NaN span": (tacos_row(relevant_windows=[[float("nan"), 8]]), "span is not a number"),
    "span behind the end": (tacos_row(relevant_windows=[[90, 95]]), "moment outside the video"),
    "span before the start": (tacos_row(relevant_windows=[[-5, 0]]), "moment outside the video"),
}
BROKEN_FILES = {
    "no field": (tacos_row(query=...), "row 2, does not fit tacos: no field 'query'"),
    "query of another type": (tacos_row(query=3), "row 2, does not fit tacos"),
    "query is null": (tacos_row(query=None), "row 2, does not fit tacos"),
    "duration is text": (tacos_row(duration="90"), "row 2, does not fit tacos: '90' is not a number of sec"),
    "duration is a boolean": (tacos_row(duration=True), "row 2, does not fit tacos: True is not a number"),
    "span is text": (tacos_row(relevant_windows=[["3", 8]]), "row 2, does not fit tacos: '3' is not a num"),
    "span of one number": (tacos_row(relevant_windows=[[3]]), r"row 2, .*the moment \[3\] is not a \[start"),
    "span is a number": (tacos_row(relevant_windows=[3]), "row 2, .*the moment 3 is not a"),
    "two spans for one": (tacos_row(relevant_windows=[[3, 8], [9, 12]]), "row 2, does not fit tacos"),
    "no span": (tacos_row(relevant_windows=[]), "row 2, does not fit tacos"),
    "a list for a row": ("[1]\n", "row 2, does not fit tacos"),
    "not JSON": ("{nope\n", "line 2, is not valid JSON"),
    "binary": ("\udcff", "is not a text file in UTF-8"),
}


@pytest.fixture
def tacos(tmp_path):
    """Write train.jsonl after a good row; returns the data root."""
    (tmp_path / "tacos").mkdir()

    def write(text: str):
        content = (tacos_row() + text).encode("utf-8", "surrogateescape")
        (tmp_path / "tacos/train.jsonl").write_bytes(content)
        return tmp_path

    return write


@pytest.mark.parametrize("case", BROKEN_ROWS)
def test_broken_rows_are_dropped_and_counted(tacos, case):
    text, reason = BROKEN_ROWS[case]
    part = load_part(Entry(name="tacos"), data_root=tacos(text + tacos_row(query="last")))
    assert [anno.query for anno in part.annotations] == ["cut leek", "last"]
    assert part.report.num_rows == 3 and part.report.dropped == {reason: 1}
    assert reason in statistics([part])


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_files_are_errors_that_name_the_place(tacos, case):
    text, message = BROKEN_FILES[case]
    with pytest.raises(ValueError, match=rf"tacos/train\.jsonl.*{message}"):
        load_part(Entry(name="tacos"), data_root=tacos(text))


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("tacos", {}, r"No annotation file .*tacos/train\.jsonl.* See data/README"),
        (
            "didemo",
            {"didemo/train_data.json": "[]{"},
            r"train_data\.json, line 1, is not valid JSON: column 3",
        ),
        ("didemo", {"didemo/train_data.json": '"x"'}, "holds a str, expected a list or a mapping"),
        (
            "didemo",
            {"didemo/train_data.json": '[{"video": "v", "times": [[0, 1]], "description": "x"}]'},
            r"No file .*didemo/durations\.json for didemo",
        ),
        (
            "didemo",
            {
                "didemo/train_data.json": '[{"video": "v", "times": [[0, 1]], "description": "x"}]',
                "didemo/durations.json": "[1]",
            },
            r"durations\.json holds a list, expected a mapping of id to seconds",
        ),
        (
            "internvid_vtime",
            {
                "internvid_vtime/anno_internvid_vtime_query_gpt4o_mini.jsonl": (
                    '{"vid": "v", "duration": 9, "query": "x", "span": [1, 2]}'
                )
            },
            "No video folder .*for internvid_vtime",
        ),
        ("queryd", {"queryd/train_list.txt": "video-v"}, r"No such file: .*raw_captions.*\.pkl"),
        (
            "nextqa",
            {"nextqa/train.csv": "video,qid\n1,2,3\n"},
            r"train\.csv, line 2, does not have the columns",
        ),
        (
            "nextqa",
            {"nextqa/train.csv": "video,qid\n1,2\n"},
            r"row 1, does not fit nextqa: no field 'answer'",
        ),
        (
            "qvhighlights_verify_2b",
            {"verifying/verifying_qvhighlights_2b.json/notes.txt": ""},
            "verifying_qvhighlights_2b.json of qvhighlights_verify_2b holds no .json file",
        ),
        (
            "mixed_planning",
            {"planning/planning_nextqa_qvhighlights_gpt4o_mini.jsonl": '{"video": "v"}'},
            "row 1, does not fit mixed_planning: .*'video'",
        ),
    ],
)
def test_missing_and_broken_files(tmp_path, name, files, message):
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_part(Entry(name=name), data_root=tmp_path)


def test_videos_that_are_not_there_are_counted(tmp_path):
    """By their whole names; the original compared the first eleven characters (D114)."""
    folder = tmp_path / "vid_morp/videos_3fps_480_noaudio"
    folder.mkdir(parents=True)
    (folder / "here.mp4").touch()
    rows = [{"vid": vid, "duration": 9, "query": "x", "span": [1, 2]} for vid in ("here", "gone", "gone")]
    (tmp_path / "vid_morp/anno_vid_morp.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    part = load_part(Entry(name="vid_morp"), data_root=tmp_path)
    assert len(part.annotations) == 1 and part.report.dropped == {"video file not found": 2}
    (folder / "gone.mp4").touch()
    assert len(load_part(Entry(name="vid_morp"), data_root=tmp_path).annotations) == 3


def test_an_answer_that_is_no_option_is_kept_and_counted(tmp_path):
    """D119: as in two rows of MLVU's needle task."""
    (tmp_path / "mlvu/json").mkdir(parents=True)
    for name in get_source("mlvu").splits["test"]:
        (tmp_path / name).write_text("[]")
    row = {"video": "a.mp4", "question": "What?", "candidates": ["x"], "answer": "y", "question_type": "ego"}
    (tmp_path / "mlvu/json/3_ego.json").write_text(json.dumps([row]))
    loaded = get_source("mlvu", tmp_path).load("test")
    assert loaded.annotations[0].ans is None
    assert loaded.noted == {"answer is not among the options": 1}


def test_splits_by_the_names_of_the_field():
    source = get_source("tacos")
    assert [source.resolve_split(s) for s in (None, "val", "validation", "test")] == [
        "train",
        "valid",
        "valid",
        "test",
    ]
    assert get_source("star").eval_split == "valid" and get_source("nextgqa").eval_split == "test"
    with pytest.raises(ValueError, match="nextgqa has no split to train on. Its splits: test, valid"):
        get_source("nextgqa").load()


def test_sources_are_small_and_share_no_code():
    folder = Path(sub_classes.__file__).parent
    texts = {path.name: path.read_text(encoding="utf-8").splitlines() for path in folder.glob("*.py")}
    assert len(texts) >= 29 and max(map(len, texts.values())) < 100
    runs: dict[tuple, str] = {}
    for name, lines in texts.items():
        code = [line.strip() for line in lines if line.strip() and not line.startswith(("import", "from"))]
        for i in range(len(code) - 5):
            assert runs.setdefault(tuple(code[i : i + 6]), name) == name, (name, code[i])


@pytest.mark.parametrize(
    ("name", "draws"),
    [("didemo", [742, 936, 207]), ("qa_ego4d", [502, 474, 994]), ("ego_timeqa", [976, 768, 64])],
)
def test_random_labels_stay_wherever_the_file_lies(name, draws):
    rng = get_source(name).rng("v1", "a query")
    assert [rng.randrange(1000) for _ in range(3)] == draws


def test_a_source_that_draws_declares_its_seed(own_registry):
    class Drawing(Source):
        names = {"drawing": Grounding}

    with pytest.raises(TypeError, match="Drawing draws at random.*draws_as"):
        get_source("drawing").rng("v1")
