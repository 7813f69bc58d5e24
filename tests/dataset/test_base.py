"""What sources, the registry and bad files say.

Covers `dataset/filters.py`, `dataset/layout.py`, `dataset/phrases.py` and `dataset/schema.py`.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from videomind.dataset import sub_classes
from videomind.dataset.base import Source, get_source
from videomind.dataset.filters import oddities
from videomind.dataset.parts import Entry, load_part
from videomind.dataset.phrases import place_of
from videomind.dataset.schema import Annotation
from videomind.dataset.statistics import statistics
from videomind.dataset.views import Grounding
from videomind.files import FileError
from videomind.video.excerpts import BadVideoError, video_duration


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
    assert not loaded.skipped and dict(loaded.dropped) == {
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
        ("queryd", {"queryd/train_list.txt": "video-v"}, r"No file .*raw_captions.*\.pkl for queryd"),
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


NEXT_ROW = "video,qid,question,a0,a1,a2,a3,a4,answer,type\n12,3,why run,x,y,z,w,v,2,CW\n"


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("vid_morp", {}, "No video folder .*vid_morp/videos_3fps_480_noaudio for vid_morp"),
        ("didemo", {"didemo/durations.json": "{"}, r"durations\.json, line 1, is not valid JSON"),
        (
            "didemo",
            {"didemo/durations.json": '{"v": "ten"}'},
            "duration of 'v' is 'ten', not a number of sec",
        ),
        ("didemo", {"didemo/durations.json": '{"v": true}'}, "duration of 'v' is True, not a number of sec"),
        ("nextqa", {}, r"No file .*map_vid_vidorID\.json for nextqa"),
        (
            "nextqa",
            {"nextqa/map_vid_vidorID.json": "[]"},
            "holds a list, expected a mapping of video id to pa",
        ),
        ("queryd", {"queryd/raw_captions_combined_filtered-v2.pkl": "junk"}, r"v2\.pkl is refused"),
    ],
)
def test_a_row_is_not_blamed_for_what_it_needs(tmp_path, name, files, message):
    rows = {
        "vid_morp/anno_vid_morp.jsonl": '{"vid": "v", "duration": 9, "query": "x", "span": [1, 2]}',
        "didemo/train_data.json": '[{"video": "v", "times": [[0, 1]], "description": "x"}]',
        "nextqa/train.csv": NEXT_ROW,
        "queryd/train_list.txt": "video-v",
    }
    for path, text in {**rows, **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    with pytest.raises(FileError, match=message) as raised:
        load_part(Entry(name=name), data_root=tmp_path)
    assert "does not fit" not in str(raised.value) and "row 1" not in str(raised.value)


def test_a_key_that_another_file_lacks_names_both(tmp_path):
    (tmp_path / "nextqa").mkdir()
    (tmp_path / "nextqa/train.csv").write_text(NEXT_ROW)
    (tmp_path / "nextqa/map_vid_vidorID.json").write_text('{"13": "99/13"}')
    with pytest.raises(FileError, match=r"train\.csv, row 1, does not fit .*map_vid_vidorID.*no entry '12'"):
        get_source("nextqa", tmp_path).load()


class RowsThatEnd:
    """Give one row, then raise; as a generator of a sub-class may."""

    def __init__(self, error):
        self.error = error

    def __call__(self, path, split):
        yield GOOD
        raise self.error


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), IndexError(), ValueError("few"), TypeError("t"), AttributeError("a"), ZeroDivisionError(),
     OverflowError(), UnicodeError("u"), AssertionError(), RuntimeError("generator raised StopIteration"),
     RecursionError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("hook", ["rows", "items", "parse"])
def test_any_error_of_a_hook_names_file_and_row(tacos, monkeypatch, hook, error):
    source = get_source("tacos", tacos(""))
    if hook == "rows":
        monkeypatch.setattr(source, hook, RowsThatEnd(error))
    else:
        given = iter([(GOOD,) if hook == "items" else Annotation(query="x")])

        def fails_second(row, split):
            found = next(given, None)
            if found is None:
                raise error
            return found

        monkeypatch.setattr(source, hook, fails_second)
        monkeypatch.setattr(source, "rows", lambda path, split: [GOOD, GOOD])
    with pytest.raises(FileError, match=r"tacos/train\.jsonl, row 2, does not fit tacos: \w+"):
        source.load()


def test_a_row_under_a_key_is_named_by_it(tmp_path):
    (tmp_path / "hirest/videos_3fps_480_noaudio").mkdir(parents=True)
    (tmp_path / "hirest/all_data_train.json").write_text('{"make tea": {"v.mp4": {"relevant": true}}}')
    with pytest.raises(FileError, match=r"all_data_train\.json, row 1 \('make tea'\), .* no field 'clip'"):
        get_source("hirest_step", tmp_path).load()


def test_a_file_of_the_data_base_without_it(tmp_path):
    (tmp_path / "youcook2").mkdir()
    (tmp_path / "youcook2/youcookii_annotations_trainval.json").write_text('{"version": 2}')
    with pytest.raises(FileError, match=r"trainval\.json holds no mapping 'database' of videos"):
        get_source("youcook2", tmp_path).load()


def test_the_place_of_an_answer_decides_not_its_text(tmp_path):
    """As in NExT-QA's 3842638015_4, whose options 4 and 5 are equal."""
    (tmp_path / "nextqa").mkdir()
    (tmp_path / "nextqa/map_vid_vidorID.json").write_text('{"12": "99/12"}')
    options = ["sad", "angry", "Happy", "happy", "happy"]
    lines = [f"12,{place},how is he,{','.join(options)},{place},DO\n" for place in range(5)]
    (tmp_path / "nextqa/train.csv").write_text(NEXT_ROW.splitlines()[0] + "\n" + "".join(lines))
    loaded = get_source("nextqa", tmp_path).load()
    assert [anno.ans for anno in loaded.annotations] == list("ABCDE")
    assert [anno.answer for anno in loaded.annotations] == ["Sad", "Angry", *["Happy"] * 3]
    assert loaded.noted == {"several options are the answer": 3}


def test_a_text_is_looked_up_before_capitals_make_options_equal(tmp_path):
    for name in ("nextgqa", "nextqa"):
        (tmp_path / name).mkdir()
    (tmp_path / "nextgqa/map_vid_vidorID.json").write_text('{"12": "99/12"}')
    (tmp_path / "nextgqa/gsub_test.json").write_text('{"12": {"duration": 9, "location": {"3": [[1, 2]]}}}')
    header = "video_id,qid,question,a0,a1,a2,a3,a4,answer,type\n"
    for answer, letter in (("It", "B"), ("it", "A"), ("RUNS", "D"), ("runs", "D")):
        row = f"12,3,why run,it,It,z,RUNS,v,{answer},CW\n"
        (tmp_path / "nextgqa/test.csv").write_text(header + row)
        (anno,) = get_source("nextgqa", tmp_path).load("test").annotations
        assert anno.ans == (letter if answer != "runs" else None), answer


@pytest.mark.parametrize("wrong", [["sink", "bed", "car"], ["bed", "Sink", "car"], ["sink"] * 3])
def test_a_drawn_place_is_kept(tmp_path, wrong):
    for name in ("qa_ego4d", "ego4d/v1"):
        (tmp_path / name).mkdir(parents=True)
    rows = [
        {"video_id": f"v{i}", "moment_start_frame": 30, "moment_end_frame": 90, "question": "where",
         "answer": "sink", "wrong_answers": wrong} for i in range(40)
    ]  # fmt: skip
    (tmp_path / "qa_ego4d/annotations.QaEgo4D_train.json").write_text(json.dumps(rows))
    (tmp_path / "ego4d/v1/durations.json").write_text(json.dumps({f"v{i}": 30 for i in range(40)}))
    source = get_source("qa_ego4d", tmp_path)
    drawn = ["ABCD"[source.rng(row["video_id"], "where").randrange(4)] for row in rows]
    assert [anno.ans for anno in source.load().annotations] == drawn and set(drawn) == set("ABCD")


@pytest.mark.parametrize("right", [-1, 2, True, "1", 1.0])
def test_a_place_outside_the_options_is_an_error(tmp_path, right):
    (tmp_path / "longvideobench").mkdir()
    row = {"video_id": "aaaaaaaaaaa", "question": "Who?", "candidates": ["a", "b"], "correct_choice": right,
           "duration_group": 60, "level": "L1", "question_category": "S2E"}  # fmt: skip
    (tmp_path / "longvideobench/lvb_val.json").write_text(json.dumps([row]))
    with pytest.raises(FileError, match=rf"row 1, .*the answer's place {right!r} is none of the 2 options'"):
        get_source("longvideobench", tmp_path).load("valid")


@pytest.mark.parametrize("name", ["", "BC", "E", "a", "1"])
def test_letters_that_name_no_option(name):
    """`"ABCD".index` finds "" and "BC" too."""
    assert [place_of(letter, 4) for letter in "ABCD"] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=f"the answer '{name}' is none of the letters A, B, C, D"):
        place_of(name, 4)


def test_evaluation_leaves_no_row_out(tacos):
    rows = [
        {"query": " . "}, {"duration": float("nan")}, {"duration": -3}, {"duration": None},
        {"relevant_windows": [[float("nan"), 8]]}, {"relevant_windows": [[95, 99]]},
    ]  # fmt: skip
    source = get_source("tacos", tacos("".join(tacos_row(**row) for row in rows)))
    loaded = source.to_predict("train")
    assert [anno.query for anno in loaded.annotations] == ["cut leek", "", *["cut leek"] * 5]
    assert [anno.duration for anno in loaded.annotations] == [90, 90, None, None, None, 90, 90]
    assert [anno.span for anno in loaded.annotations[-2:]] == [None, [[95, 99]]]
    assert not loaded.dropped and not loaded.skipped
    assert loaded.noted == {
        "duration is not a positive number": 2,
        "span is not a number": 1,
        "moment reaches beyond the video's end": 1,
    }
    assert loaded.findings()[0] == "2 annotations kept, although: duration is not a positive number"


def test_evaluation_needs_no_durations_file_of_a_video(charades):
    source = charades("A 1 2##x.\nC 1 2##y.\nB 1 2##z.\n")
    loaded = source.to_predict("train")
    assert [anno.duration for anno in loaded.annotations] == [10.0, None, None]


def test_a_row_without_question_and_options_is_predicted_for(tmp_path):
    """As one of MLVU's topic_reasoning; what it lacks may be empty, null or absent."""
    (tmp_path / "mlvu/json").mkdir(parents=True)
    for name in get_source("mlvu").splits["test"]:
        (tmp_path / name).write_text("[]")
    row = {"video": "a.mp4", "question_type": "topic_reasoning"}
    full = {**row, "question": "What?", "candidates": ["x"], "answer": "x"}
    lacking = [{"question": "", "candidates": []}, {"question": None, "candidates": None}, {}]
    rows = [full, *({**row, **empty} for empty in lacking)]
    (tmp_path / "mlvu/json/7_topic_reasoning.json").write_text(json.dumps(rows))
    loaded = get_source("mlvu", tmp_path).to_predict()
    assert [anno.question for anno in loaded.annotations] == ["What?", "", "", ""]
    assert all(anno.video_path.endswith("7_topic_reasoning/a.mp4") for anno in loaded.annotations)
    del full["candidates"]  # with a question they belong to the row
    (tmp_path / "mlvu/json/7_topic_reasoning.json").write_text(json.dumps([full]))
    with pytest.raises(FileError, match="row 1, does not fit mlvu: no field 'candidates'"):
        get_source("mlvu", tmp_path).to_predict()


def test_labels_that_cannot_be_read_are_none(tmp_path):
    """ActivityNet-RTL's answers are free text: without two times there is no moment to compare with."""
    (tmp_path / "activitynet_rtl").mkdir()
    rows = [{"vid": "a", "duration": 9, "question": "When?", "answer": text} for text in ("<3> <1>", "<3>")]
    (tmp_path / "activitynet_rtl/annot_val_1_q229.json").write_text(json.dumps(rows))
    loaded = get_source("activitynet_rtl", tmp_path).to_predict()
    assert [anno.span for anno in loaded.annotations] == [[[1, 3]], None]


def test_a_folder_without_frames_is_predicted_for_and_fails(tmp_path):
    source = get_source("mvbench", tmp_path)
    folder = tmp_path / "mvbench/video/tvqa/frames_fps3_hq/clip_0"
    folder.mkdir(parents=True)
    assert source.video_path("tvqa/frames_fps3_hq/clip_0") == str(folder)
    with pytest.raises(BadVideoError, match="clip_0: a folder, not a video"):
        video_duration(str(folder))


def test_a_letter_that_is_not_its_texts_is_noted():
    anno = Annotation(options=["a", "b"], answer="a", ans="B")
    assert oddities(anno) == ["the answer's letter is that of another option"]
    assert oddities(replace(anno, ans="A")) == oddities(replace(anno, ans=None)) == []


def test_videos_that_are_not_there_are_counted(tmp_path):
    """By their whole names; the original compared the first eleven characters (D114)."""
    folder = tmp_path / "vid_morp/videos_3fps_480_noaudio"
    folder.mkdir(parents=True)
    (folder / "here.mp4").touch()
    rows = [{"vid": vid, "duration": 9, "query": "x", "span": [1, 2]} for vid in ("here", "gone", "gone")]
    (tmp_path / "vid_morp/anno_vid_morp.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    part = load_part(Entry(name="vid_morp"), data_root=tmp_path)
    assert len(part.annotations) == 1 and part.report.skipped == {"video file not found": 2}
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
    with pytest.raises(
        ValueError, match="nextgqa has no split to train on. Its splits: nextgqa@test, nextgqa@valid."
    ):
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
