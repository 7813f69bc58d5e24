"""Data sets without code, and what docs/CUSTOM_DATASET.md says of them."""

import importlib.util
import json
import os
import random
import re
import shutil
import sys
from dataclasses import replace

import pytest
from helpers.runs import REPO
from helpers.videos import numbered
from PIL import Image

from videomind.agent.agent import video_annotation
from videomind.backbones.registry import load_processor
from videomind.dataset.own_data import VIEWS as VIEWS_BY_NAME
from videomind.dataset.parts import Entry, load_part, open_source
from videomind.dataset.views import Answering, AnsweringCrop, Grounding, Planning, Verifying
from videomind.encoding.encoder import Encoder
from videomind.files import append_json_line, read_json_lines
from videomind.roles import VisualUnits
from videomind.train.mixture import Mixture
from videomind.video.excerpts import read_excerpt

GUIDE = (REPO / "docs/CUSTOM_DATASET.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```jsonl\n(.*?)```", GUIDE, re.DOTALL)
VIEWS = [Grounding, Answering, Verifying, Planning]


@pytest.fixture
def home(tmp_path, workshop):
    """A folder with videos/kitchen.mp4."""
    (tmp_path / "videos").mkdir()
    video = next((workshop / "data/charades_sta/videos_3fps_480_noaudio").glob("*.mp4"))
    shutil.copy(video, tmp_path / "videos/kitchen.mp4")
    return tmp_path


@pytest.fixture
def write(home):
    """Write rows to annos.jsonl; returns its path."""

    def write(*rows) -> str:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (home / "annos.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return str(home / "annos.jsonl")

    return write


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "view"), list(zip(BLOCKS, VIEWS, strict=True)), ids=[v.__name__ for v in VIEWS]
)
def test_the_rows_of_the_guide_run(write, workshop, block, view):
    path = write(*block.splitlines())
    mixture = Mixture(path, encoder=Encoder(load_processor(workshop / "base")))
    (part,) = mixture.parts
    assert isinstance(part.view, view) and not part.report.dropped
    assert len(mixture) == {Verifying: 3}.get(view, 2)
    items = [mixture[i] for i in range(len(mixture))]
    assert not any(item.bad for item in items)
    assert all((item.encoded.targets is not None) == (view is Grounding) for item in items)


def test_what_rows_become(write):
    path = write(
        {
            "video": "videos/kitchen.mp4",
            "question": " what  boils ",
            "options": ["oil", "tea"],
            "answer": "tea",
        }
    )
    (anno,) = load_part(Entry(name=path)).annotations
    assert (anno.question, anno.query, anno.ans, anno.source) == ("what boils", "what boils", "B", "annos")
    assert anno.video_path.endswith("/videos/kitchen.mp4")


def test_the_duration_is_read_where_the_role_needs_it(write):
    video = {"video": "videos/kitchen.mp4"}
    (asked,) = load_part(Entry(name=write({**video, "question": "q", "answer": "a"}))).annotations
    (sought,) = load_part(Entry(name=write({**video, "query": "q", "span": [[0, 1]]}))).annotations
    assert asked.duration is None and sought.duration > 1


def test_verifying_rows_are_judged_by_their_span(write):
    row = {"video": "videos/kitchen.mp4", "query": "x", "span": [[2, 4]], "pred": [[2, 4], [3, 5], [2, 3]]}
    found = load_part(Entry(name=write({**row, "duration": 9}))).annotations
    assert [(a.pred, a.positive) for a in found] == [([2, 4], True), ([3, 5], False), ([2, 3], True)]


def test_a_view_of_ones_own_choice(write):
    base = {"video": "videos/kitchen.mp4", "question": "q", "answer": "a", "span": [[1, 2]], "duration": 60}
    crop = load_part(Entry(name=write({**base, "view": "answering_crop"})))
    sample = crop.view.sample(crop.annotations[0], random.Random(0))
    assert isinstance(crop.view, AnsweringCrop) and sample.excerpt.end_s < 60
    ground = load_part(Entry(name=write({**base, "view": "grounding"})))
    assert isinstance(ground.view, Grounding) and ground.annotations[0].query == "q"


GOOD = {"video": "videos/kitchen.mp4", "query": "x", "span": [[1, 2]], "duration": 9}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**GOOD, "spam": [[1, 2]]}, "line 3, .*unknown field 'spam'. .* Did you mean 'span'"),
        ({**GOOD, "query": 3}, "line 3, .*query is 3, expected str"),
        ({**GOOD, "duration": True}, "line 3, .*duration is True, expected int or float"),
        ({**GOOD, "span": [[1]]}, r"line 3, .*the moment \[1\] is not a \[start, end\] pair"),
        ({**GOOD, "pred": [[1, 2]]}, "line 3, .*it is a row for verifying, the first one is for grounding"),
        ({**GOOD, "view": "ground"}, "line 3, .*the view 'ground'. Allowed: .* Did you mean 'grounding'"),
        ({"video": "videos/kitchen.mp4"}, "line 3, .*neither 'query' nor 'question'"),
        ({"query": "x", "span": [[1, 2]]}, "line 3, .*no field 'video'"),
        ("[]", r"line 3, .*holds \[\], expected a JSON object"),
        ("{", "line 3, is not valid JSON"),
    ],
)
def test_a_wrong_row_names_its_line(write, row, message):
    path = write(GOOD, "", row)
    with pytest.raises(ValueError, match=message):
        load_part(Entry(name=path))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "options": ["a"], "answer": "b"}, "the answer 'b' is not among the options"),
        ({"query": "x", "pred": [[1, 2]]}, "a candidate needs 'positive' .* or 'span'"),
    ],
)
def test_a_wrong_first_row(write, row, message):
    with pytest.raises(ValueError, match=f"line 1, .*{message}"):
        load_part(Entry(name=write({"video": "videos/kitchen.mp4", **row})))


def test_rows_that_cannot_train_are_counted(write, home):
    (home / "videos/broken.mp4").write_bytes(b"no video")
    rows = [
        GOOD,
        {**GOOD, "video": "videos/gone.mp4"},
        {"video": "videos/broken.mp4", "query": "x", "span": [[1, 2]]},
        {**GOOD, "query": " . "},
        {**GOOD, "span": [[9, 12]]},
        {**GOOD, "span": []},
    ]
    part = load_part(Entry(name=write(*rows)))
    assert len(part.annotations) == 1
    assert part.report.skipped == {"video file not found": 1, "video cannot be read": 1}
    assert part.report.dropped == {
        "empty query": 1,
        "moment outside the video": 1,
        "no span": 1,
    }
    # A video that arrives later counts, though the file of annotations is the same.
    shutil.copy(home / "videos/kitchen.mp4", home / "videos/gone.mp4")
    assert len(load_part(Entry(name=write(*rows))).annotations) == 2


LONG = "x" * 5_000


@pytest.mark.parametrize(
    "video",
    [f"{LONG}.mp4", "a/" * 3_000, "a\0b.mp4", "half\ud800.mp4", "videos/kitchen.mp4/v.mp4", [LONG, "b\0"]],
    ids=["long name", "long path", "zero byte", "half a pair", "below a file", "list"],
)
def test_a_video_that_no_file_can_be_is_one_that_is_not_there(write, video):
    part = load_part(Entry(name=write(GOOD, {**GOOD, "video": video})))
    assert len(part.annotations) == 1 and part.report.skipped == {"video file not found": 1}


NOT_UTF8 = os.fsdecode(b"caf\xe9")


def test_names_of_files_need_not_be_utf8(write, home):
    """A video, its folder and images; as annotations are read, kept, shown and written."""
    shutil.copy(home / "videos/kitchen.mp4", home / f"{NOT_UTF8}.mp4")
    (home / NOT_UTF8).mkdir()
    image = Image.fromarray(numbered(1))
    for i in range(4):
        image.save(home / NOT_UTF8 / f"{i}{NOT_UTF8}.png")
    names = ["videos/kitchen.mp4", f"{NOT_UTF8}.mp4", NOT_UTF8]
    part = load_part(Entry(name=write(*({**GOOD, "video": name} for name in names))))
    paths = [anno.video_path for anno in part.annotations]
    assert paths[:2] == [str(home / name) for name in names[:2]]
    assert paths[2] == [str(home / NOT_UTF8 / f"{i}{NOT_UTF8}.png") for i in range(4)]
    assert part.annotations.videos() == {(paths[0],), (paths[1],), tuple(paths[2])}
    for anno in part.annotations:
        excerpt = part.view.sample(anno, random.Random(0)).excerpt
        units = VisualUnits(token_side=28, frames_per_step=2)
        assert len(read_excerpt(replace(excerpt, budget=excerpt.budget.on(units))).frames)
        append_json_line(home / "out.jsonl", anno.to_dict())
    assert [row["video_path"] for _, row in read_json_lines(home / "out.jsonl")] == paths
    assert video_annotation(paths[1], "x").video_path == paths[1]


@pytest.mark.parametrize("name", [f"{LONG}.jsonl", f"{LONG}.json", "a\0b.jsonl"])
def test_a_data_set_that_no_file_can_be_is_named(name):
    with pytest.raises(ValueError, match="No annotation file"):
        open_source(name)


@pytest.mark.parametrize("view", list(VIEWS_BY_NAME))
def test_every_view_trains_without_a_duration(write, view):
    """It is read from the video where the sample needs it."""
    row = {**GOOD, "view": view, "question": "x", "answer": "y", "pred": [[1, 2]], "route": 2}
    row.pop("duration", None)
    part = load_part(Entry(name=write(row)))
    assert part.view.sample(part.annotations[0], random.Random(0)).role == part.view.role


@pytest.mark.parametrize("value", [2**53 + 1, 2**70, -(2**70), 10**400], ids=["53", "70", "-70", "1000"])
@pytest.mark.parametrize("field", ["duration", "span", "pred", "route"])
def test_an_integer_that_no_column_holds_names_its_line(write, field, value):
    changed = value if field in ("duration", "route") else [[0, value]]
    row = {**GOOD, "view": "verifying", "pred": [[0, 1]], field: changed}
    with pytest.raises(ValueError, match=r"annos\.jsonl, line 2, .*(more than 53 bits|too large)"):
        load_part(Entry(name=write({**GOOD, "view": "verifying", "pred": [[0, 1]]}, row)))


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_none_names_its_line(write, fps):
    row = {**GOOD, "video": ["videos/kitchen.mp4"], "fps": fps}
    with pytest.raises(ValueError, match=r"line 1, .*fps is .*expected images per second above 0"):
        load_part(Entry(name=write(row)))


def test_the_state_of_the_cache_is_that_of_the_videos(write, home):
    """A missing video makes nothing new; one that comes, or changes, does, beside what others have open."""
    (home / "videos/late.mp4").write_bytes(b"no video")
    rows = [
        {"video": f"videos/{name}.mp4", "query": name, "span": [[0, 1]]}
        for name in ("kitchen", "gone", "late")
    ]
    path = write(*rows)
    parts = [load_part(Entry(name=path))]
    tables = [parts[0].annotations.path]
    written = tables[0].stat()
    for _ in range(2):
        again = load_part(Entry(name=path))
        assert again.annotations.path == tables[0] and tables[0].stat() == written
    for name, kept in (("gone", ["kitchen", "gone"]), ("late", ["kitchen", "gone", "late"])):
        shutil.copy(home / "videos/kitchen.mp4", home / f"videos/{name}.mp4")
        parts.append(load_part(Entry(name=path)))
        assert [anno.query for anno in parts[-1].annotations] == kept
        tables.append(parts[-1].annotations.path)
    assert len(set(tables)) == 3 and all(table.is_file() for table in tables)
    assert [anno.query for anno in parts[0].annotations] == ["kitchen"]


def test_a_row_without_candidates_is_counted(write):
    rows = [{**GOOD, "view": "verifying", "pred": pred} for pred in ([[1, 2]], [])]
    part = load_part(Entry(name=write(*rows)))
    assert len(part.annotations) == 1 and part.report.skipped == {"it asks for nothing": 1}


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(ValueError, match="No annotation file .*none.jsonl"):
        open_source(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="empty.jsonl holds no row"):
        open_source(str(tmp_path / "empty.jsonl"))


def test_the_source_of_the_guide_works(tmp_path, monkeypatch, own_registry):
    code = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)[0]
    (tmp_path / "kitchens.py").write_text(code)
    spec = importlib.util.spec_from_file_location("kitchens", tmp_path / "kitchens.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kitchens", module)
    spec.loader.exec_module(module)
    (tmp_path / "kitchens").mkdir()
    (tmp_path / "kitchens/train.csv").write_text(
        "id,question,a,b,answer,start,end\nv,What boils?,oil,tea,tea,1,2\n"
    )
    (tmp_path / "kitchens/durations.json").write_text('{"v": 20}')
    (anno,) = load_part(Entry(name="kitchens_crop"), data_root=tmp_path).annotations
    assert (anno.ans, anno.span, anno.duration, anno.data_type) == ("B", [[1, 2]], 20, "multimodal")
    assert anno.video_path == f"{tmp_path}/kitchens/videos/v.mp4"
