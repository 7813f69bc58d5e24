"""Entries of `--datasets`, filters, the cache of annotations, weights, statistics.

Covers `dataset/cache.py`, `dataset/table.py` and `dataset/statistics.py`.
"""

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import fields

import pytest
from helpers.runs import REPO, environment

from videomind.dataset.base import Source, get_source
from videomind.dataset.cache import cache_folder
from videomind.dataset.commands import main
from videomind.dataset.filters import Filters
from videomind.dataset.parts import Entry, load_part, load_parts, parse_entries
from videomind.dataset.schema import Annotation
from videomind.dataset.statistics import count_videos, statistics
from videomind.dataset.table import BATCH_ROWS, AnnotationTable, write_table
from videomind.dataset.views import Grounding
from videomind.train.mixture import Mixture


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        (" a, b ,", [Entry(name="a"), Entry(name="b")]),
        ("a@valid:0.5", [Entry(name="a", split="valid", weight=0.5)]),
        ("a:2,my/annos@1.jsonl:3", [Entry(name="a", weight=2), Entry(name="my/annos@1.jsonl", weight=3)]),
    ],
)
def test_entries(text, entries):
    assert parse_entries(text) == entries


@pytest.mark.parametrize(
    ("text", "message"),
    [(" , ", "No data set given"), ("a:0", "weight of 'a:0'.*'0'"), ("a:x", "'x'"), ("a:nan", "'nan'")],
)
def test_entries_that_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        parse_entries(text)


@pytest.mark.parametrize(
    ("fields", "filters", "reason"),
    [
        ({"duration": 4.9}, {"min_video_len": 5}, "video length"),
        ({"duration": 5.0}, {"min_video_len": 5, "max_video_len": 5}, None),
        ({"duration": 501}, {"max_video_len": 500}, "video length"),
        ({"query": "a b c"}, {"max_num_words": 2}, "number of words"),
        ({"query": "a b c"}, {"min_num_words": 3, "max_num_words": 3}, None),
        ({"span": None}, {}, "no span"),
        ({"span": []}, {}, "no span"),
    ],
)
def test_filters_say_why(fields, filters, reason):
    base = {"video_path": "v.mp4", "duration": 10.0, "query": "a", "span": [[1, 2]]}
    anno = Annotation(**{**base, **fields})
    assert Filters(**filters).reason(anno, Grounding()) == reason


@pytest.fixture
def charades(tmp_path):
    """A small Charades-STA of six queries; returns its data root."""
    folder = tmp_path / "data/charades_sta"
    (folder / "videos_3fps_480_noaudio").mkdir(parents=True)
    (folder / "durations.json").write_text(json.dumps({f"v{i}": 10.0 for i in range(6)}))
    write(tmp_path / "data", "".join(f"v{i} 1 {i + 2}##find {i}.\n" for i in range(6)))
    return tmp_path / "data"


def write(root, text):
    (root / "charades_sta/charades_sta_train.txt").write_text(text)


def queries(part):
    return [anno.query for anno in part.annotations]


def test_annotations_come_from_the_cache(charades, monkeypatch):
    entry = Entry(name="charades_sta")
    first = load_part(entry, data_root=charades)
    assert list(first.annotations) == get_source("charades_sta", charades).load().annotations

    def must_not_read(self, split, report):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(Source, "read", must_not_read)
        again = load_part(entry, data_root=charades)
        assert list(again.annotations) == list(first.annotations) and again.report == first.report
        for other in ({"filters": Filters(max_num_words=1)}, {"seed": 1}):
            with pytest.raises(AssertionError, match="read again"):
                load_part(entry, data_root=charades, **other)
    write(charades, "v0 1 2##new.\n")
    assert queries(load_part(entry, data_root=charades)) == ["new"]
    (charades / "charades_sta/durations.json").write_text(json.dumps({"v1": 9.0}))
    changed = load_part(entry, data_root=charades)
    assert queries(changed) == [] and changed.report.dropped == {"no entry in the durations file": 1}


TOUCHED = """
import sys
from pathlib import Path
import videomind
from videomind.dataset import cache
from videomind.dataset.filters import ALL
from videomind.dataset.parts import open_source

def state(source):
    cache._file_digest.cache_clear()
    return cache.Cache(source, source.resolve_split(None), ALL).table

name, data_root, *files = sys.argv[1:]
source = open_source(name, data_root)
for file in files:
    (path,) = Path(videomind.__file__).parent.rglob(file)
    before = state(source)
    path.write_text(path.read_text() + "# touched")
    print(file, state(source) != before)
"""


def test_code_that_makes_annotations_is_part_of_the_cache(charades, tmp_path):
    """Told by touching a copy of the package: its reading, the spans, verifying rows of one's own."""
    own = tmp_path / "own.jsonl"
    own.write_text('{"video": "v.mp4", "view": "grounding", "query": "x", "span": [[0, 1]]}\n')
    shutil.copytree(REPO / "videomind", tmp_path / "copy/videomind")
    env = environment() | {"PYTHONPATH": str(tmp_path / "copy")}

    def changes(name, *files):
        command = [sys.executable, "-c", TOUCHED, str(name), str(charades), *files]
        run = subprocess.run(
            command, env=env, cwd=tmp_path / "copy", capture_output=True, text=True, check=True
        )
        return dict(line.split() for line in run.stdout.splitlines())

    files = ("spans.py", "charades_sta.py", "table.py", "cli.py")
    assert list(changes("charades_sta", *files).values()) == ["True", "True", "True", "False"]
    assert set(changes(own, "spans.py", "roles.py", "verifying.py").values()) == {"True"}


def test_a_cache_that_was_not_finished_is_written_again(charades):
    entry = Entry(name="charades_sta")
    part = load_part(entry, data_root=charades)
    path, whole = part.annotations.path, queries(part)
    del part
    for missing in (path.with_suffix(".json"), path):  # killed before the report; half removed by hand
        path.write_bytes(b"half")
        missing.unlink()
        assert queries(load_part(entry, data_root=charades)) == whole


def test_old_states_leave_the_cache_unless_they_are_open(charades):
    entry, opened = Entry(name="charades_sta"), []
    for i in range(3):
        write(charades, f"v0 1 2##query {i}.\n")
        opened.append(load_part(entry, data_root=charades))
    folder = opened[-1].annotations.path.parent
    assert [queries(part) for part in opened] == [[f"query {i}"] for i in range(3)]
    assert len(list(folder.glob("*.arrow"))) == 3
    opened.clear()
    write(charades, "v0 1 2##last.\n")
    assert queries(load_part(entry, data_root=charades)) == ["last"]
    assert len(list(folder.glob("*.arrow"))) == len(list(folder.glob("*.json"))) == 1


OPENED = """
import sys
from videomind.dataset.table import AnnotationTable
table = AnnotationTable(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
print([anno.query for anno in table])
"""


def test_a_table_that_another_process_has_open_stays(charades):
    entry = Entry(name="charades_sta")
    path = load_part(entry, data_root=charades).annotations.path
    command = [sys.executable, "-c", OPENED, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=REPO, env=environment(), **pipes) as process:
        assert process.stdout.readline() == "open\n"
        write(charades, "v0 1 2##new.\n")
        assert queries(load_part(entry, data_root=charades)) == ["new"]
        assert path.is_file()
        assert process.communicate("\n")[0].strip() == str([f"find {i}" for i in range(6)])
    write(charades, "v0 1 2##newer.\n")
    load_part(entry, data_root=charades)
    assert not path.exists()


def test_a_cache_that_cannot_be_written_says_so(charades, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIDEOMIND_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="Cannot write the cache.*VIDEOMIND_CACHE"):
        load_part(Entry(name="charades_sta"), data_root=charades)


def test_cache_folder(monkeypatch):
    monkeypatch.delenv("VIDEOMIND_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(cache_folder()) == "/x/videomind/annotations"


def test_a_table_keeps_every_field(tmp_path):
    """Also across batches, and after it was sent to another process."""
    full = Annotation(
        **dict.fromkeys(("source", "data_type", "query", "question", "answer", "ans", "uid"), "é"),
        **dict.fromkeys(("subtitle_path", "domain", "level", "time_reference"), "é"),
        **{"video_path": ["a.jpg", "b.jpg"], "options": ["x", "y"], "task": ["t", "u"]},
        **{"span": [[0.0, 1.0], [1.0, 1.5]], "pred": [0.0, 1.0], "duration": 1.5},
        **{"no_aug": True, "positive": False, "route": 3, "question_category": 2, "meta": {"qid": 7}},
    )
    assert None not in full.to_dict().values() and len(full.to_dict()) == len(fields(Annotation))
    rows = [full, Annotation(), *(Annotation(query=f"é {i}") for i in range(BATCH_ROWS + 5))]
    write_table(tmp_path / "t.arrow", ((anno, i) for i, anno in enumerate(rows)))
    table = pickle.loads(pickle.dumps(AnnotationTable(tmp_path / "t.arrow")))
    assert list(table) == rows and len(table) == len(rows)
    assert table.numbers("span").tolist() == [0, 1, 1, 1.5]
    assert table.numbers("num_words").sum() == sum(range(len(rows)))
    with pytest.raises(IndexError, match="No annotation -1 among"):
        table[-1]


def test_weights(charades):
    """2.5 holds everything twice, and half of it a third time: another half in every epoch."""
    mixture = Mixture("charades_sta:2.5,charades_sta", encoder=None, data_root=charades)
    assert len(mixture) == 15 + 6
    assert [len(part) for part in mixture.parts] == [15, 6]
    seen = []
    for epoch in range(20):
        drawn = [mixture.annotation(i, epoch)[1].query for i in range(21)]
        counts = Counter(drawn[:15])
        assert sorted(counts.values()) == [2, 2, 2, 3, 3, 3]
        assert Counter(drawn[15:]) == Counter(f"find {i}" for i in range(6))
        seen.append(tuple(sorted(query for query, count in counts.items() if count == 3)))
    assert len(set(seen)) > 3
    again = Mixture("charades_sta:2.5,charades_sta", encoder=None, data_root=charades)
    assert [again.annotation(i, 7)[1] for i in range(21)] == [mixture.annotation(i, 7)[1] for i in range(21)]


def test_a_small_weight_still_counts(charades):
    assert len(Mixture("charades_sta:0.01", encoder=None, data_root=charades)) == 1


def test_moments_outside_the_video_do_not_train(charades):
    write(charades, "v0 1 2##in.\nv0 9 12##over the end.\nv0 10 12##out.\nv0 -3 0##before.\n")
    part = load_part(Entry(name="charades_sta"), data_root=charades)
    assert queries(part) == ["in", "over the end"]
    assert part.report.dropped == {"moment outside the video": 2}
    assert part.report.noted == {"moment reaches beyond the video's end": 1}


def test_didemo_keeps_them(tmp_path):
    folder = tmp_path / "didemo"
    folder.mkdir()
    (folder / "train_data.json").write_text('[{"video": "v.avi", "times": [[5, 5]], "description": "x"}]')
    (folder / "durations.json").write_text('{"v": 24.5}')
    assert queries(load_part(Entry(name="didemo"), data_root=tmp_path)) == ["x"]


def test_statistics(charades):
    filters = Filters(max_num_words=2)
    odd = "v0 5 4##one two three.\nw 1 2##x\nv0 5 5##never\n"
    write(charades, "".join(f"v{i} 1 {i + 2}##find {i}.\n" for i in range(4)) + odd)
    text = statistics([load_part(Entry(name="charades_sta"), data_root=charades, filters=filters)])
    rows = [line.split() for line in text.splitlines()]
    assert ["charades_sta", "train", "grounding", "7", "0", "7", "5", "1", "100.0%"] in rows
    assert ["charades_sta", "number", "of", "words", "1"] in rows
    assert ["charades_sta", "no", "entry", "in", "the", "durations", "file", "1"] in rows
    assert ["charades_sta", "moment", "ends", "before", "it", "starts,", "or", "at", "once", "1"] in rows
    assert "video length (s): mean 10.00, shortest 10.00, longest 10.00" in text
    assert "moment length (s): mean 2.00, shortest 0.00, longest 4.00" in text
    assert "words: mean 1.80" in text


def test_rows_and_annotations_are_counted_apart(tmp_path):
    """A video that is left out is no step, however many it has."""
    (tmp_path / "hirest/videos_3fps_480_noaudio").mkdir(parents=True)
    (tmp_path / "hirest/videos_3fps_480_noaudio/here.mp4").touch()
    steps = [{"heading": h, "absolute_bounds": [4, 20]} for h in ("boil", "pour", " . ")]
    video = {"relevant": True, "clip": True, "v_duration": 90, "bounds": [4, 70], "steps": steps}
    rows = {"tea": {"here.mp4": video, "gone.mp4": video, "other.mp4": {**video, "clip": False}}}
    (tmp_path / "hirest/all_data_train.json").write_text(json.dumps(rows))
    text = statistics([load_part(Entry(name="hirest_step"), data_root=tmp_path)])
    lines = [line.split() for line in text.splitlines()]
    assert ["hirest_step", "train", "grounding", "3", "2", "3", "2", "1", "100.0%"] in lines
    assert ["hirest_step", "video", "file", "not", "found", "1"] in lines
    assert ["hirest_step", "empty", "query", "1"] in lines


def test_missing_videos_are_counted_once_each(charades):
    (charades / "charades_sta/videos_3fps_480_noaudio/v0.mp4").touch()
    write(charades, "".join(f"v{i % 3} 1 2##query {i}.\n" for i in range(6)))
    part = load_part(Entry(name="charades_sta"), data_root=charades)
    assert count_videos(part.annotations) == count_videos(list(part.annotations)) == (3, 2)
    text = statistics([part], look_for_videos=True)
    assert re.search(r"share +videos +missing\n", text) and re.search(r"100\.0% +3 +2\n", text)


def test_a_video_of_images_is_missing_when_one_of_them_is(tmp_path):
    (tmp_path / "1.jpg").touch()
    paths = [str(tmp_path / name) for name in ("1.jpg", "2.jpg")]
    annos = [Annotation(video_path=paths), Annotation(video_path=paths[:1]), Annotation(video_path=paths)]
    write_table(tmp_path / "t.arrow", ((anno, 1) for anno in annos))
    assert count_videos(annos) == count_videos(AnnotationTable(tmp_path / "t.arrow")) == (2, 1)


def stats(data_root, *names: str) -> int:
    return main(["stats", *names, "--data_root", str(data_root)])


def test_statistics_of_a_benchmark_are_those_of_its_evaluation(tmp_path, capsys):
    """A row without an answer or a question would not train, but is predicted for."""
    (tmp_path / "mlvu/json").mkdir(parents=True)
    for name in get_source("mlvu").splits["test"]:
        (tmp_path / name).write_text("[]")
    row = {"video": "a.mp4", "question": "What?", "candidates": ["x"], "answer": None, "question_type": "ego"}
    nothing = {**row, "video": "b.mp4", "question": "", "candidates": []}
    (tmp_path / "mlvu/json/3_ego.json").write_text(json.dumps([row, nothing]))
    assert stats(tmp_path, "mlvu") == 2
    assert "mlvu has no split to train on. Its splits: mlvu@test." in capsys.readouterr().err
    assert stats(tmp_path, "mlvu@test") == 0
    said = capsys.readouterr()
    assert re.search(r"mlvu +test +multimodal +2 +0 +2 +2 +1 +100\.0% +2 +2\n", said.out)
    assert "3_ego.json" not in said.err and said.err.count("holds no row") == 6


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_a_warning_every_time(charades, caplog, content):
    write(charades, content)
    for _ in range(2):  # read, and from the cache
        caplog.clear()
        part = load_part(Entry(name="charades_sta"), data_root=charades)
        assert len(part.annotations) == 0 and "charades_sta_train.txt holds no row" in caplog.text
    assert "charades_sta_train.txt holds no row" in statistics([part])


def test_the_command_prints_them(charades):
    def run(name):
        command = [sys.executable, "-m", "videomind.cli", "data", "stats", name, "--data_root", charades]
        return subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True)

    part = load_part(Entry(name="charades_sta"), data_root=charades)
    assert run("charades_sta").stdout == statistics([part], look_for_videos=True) + "\n"
    failed = run("charades")
    assert failed.returncode == 2
    assert "Did you mean 'charades_sta'" in failed.stderr and "Traceback" not in failed.stderr


def test_a_list_of_many_files_says_how_many_are_missing(tmp_path, capsys):
    """Present only when all are there, whichever comes first."""
    names = get_source("mlvu").splits["test"]
    (tmp_path / "mlvu/json").mkdir(parents=True)

    def listed() -> list[str]:
        assert main(["list", "--data_root", str(tmp_path)]) == 0
        lines = iter(capsys.readouterr().out.splitlines())
        first = next(line for line in lines if line.startswith("mlvu "))
        return [first, next(lines)]

    for name in names[:-1]:
        (tmp_path / name).write_text("[]")
    first, second = listed()
    assert f"- {names[-1]}" in first and f"- 1 of {len(names)} files are missing" in second
    (tmp_path / names[-1]).write_text("[]")
    first, second = listed()
    assert f"  {names[0]}" in first and f"... {len(names)} files" in second and "missing" not in second


def test_the_list_marks_what_is_missing(charades, capsys):
    assert main(["list", "--data_root", str(charades)]) == 0
    lines = {tuple(line.split()[:3]): line for line in capsys.readouterr().out.splitlines() if line.strip()}
    train = lines["charades_sta", "grounder", "train"]
    assert "  charades_sta/charades_sta_train.txt" in train and "- charades_sta/videos" not in train
    assert "- charades_sta/charades_sta_test.txt" in lines["charades_sta", "grounder", "test"]
    assert "- qvhighlights/highlight_train_release.jsonl" in lines["qvhighlights", "grounder", "train"]


def test_stale_parts_are_read_side_by_side(charades):
    """In other processes; the result is that of reading one after the other."""
    (charades / "didemo").mkdir()
    (charades / "didemo/train_data.json").write_text(
        '[{"video": "v", "times": [[1, 2]], "description": "x"}]'
    )
    (charades / "didemo/durations.json").write_text('{"v": 24.5}')
    entries = [Entry(name="charades_sta"), Entry(name="didemo")]
    together = load_parts(entries, data_root=charades)
    assert [list(part.annotations) for part in together] == [
        get_source(entry.name, charades).load().annotations for entry in entries
    ]
    (charades / "didemo/durations.json").write_text("[1]")
    write(charades, "v0 1 2##x.\n")
    with pytest.raises(ValueError, match="durations.json holds a list, expected a mapping"):
        load_parts(entries, data_root=charades)
