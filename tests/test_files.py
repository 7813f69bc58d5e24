"""Files are written whole with a new file's permissions; mistakes in JSON are named by line and column."""

import json
import os
import random
import re
import stat
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.machine import closed, no_room
from safetensors.torch import save_file

from videomind.dataset.schema import Annotation
from videomind.dataset.table import write_table
from videomind.files import (
    append_json_line,
    atomic_files,
    atomic_path,
    copy_file,
    parse_json,
    read_json,
    read_json_lines,
    write_json,
    write_json_lines,
    write_text,
)
from videomind.video_chatgpt.features.store import write_features

UMASKS = (0o022, 0o002, 0o077)


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def permissions(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_that_a_library_replaces_follows_the_umask(tmp_path, umask):
    with atomic_path(tmp_path / "new/a.safetensors") as temporary:
        save_file({"x": torch.ones(1)}, temporary)
    with atomic_files(tmp_path / "new") as folder:
        save_file({"x": torch.ones(1)}, folder / "b.safetensors")
        (folder / "c.txt").write_text("c")
        (folder / "c.txt").chmod(0o700)
    copy_file(tmp_path / "new/c.txt", tmp_path / "new/d.txt")
    assert {p.name: permissions(p) for p in (tmp_path / "new").iterdir()} == dict.fromkeys(
        ("a.safetensors", "b.safetensors", "c.txt", "d.txt"), 0o666 & ~umask
    )
    assert permissions(tmp_path / "new") == 0o777 & ~umask


def test_a_private_file_is_copied_as_a_new_one_and_never_onto_itself(tmp_path, umask):
    (tmp_path / "a").write_text("a")
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "same").symlink_to("a")
    copy_file(tmp_path / "a", tmp_path / "b")
    copy_file(tmp_path / "a", tmp_path / "same")
    assert (tmp_path / "b").read_text() == "a" and permissions(tmp_path / "b") == 0o666 & ~umask
    assert (tmp_path / "same").is_symlink()


def test_what_fails_leaves_all_as_it_was(tmp_path):
    write_text(tmp_path / "a", "old")
    for write in (lambda: atomic_path(tmp_path / "a"), lambda: atomic_files(tmp_path, replaces="*")):
        with pytest.raises(RuntimeError), write() as temporary:
            (temporary / "a" if temporary.is_dir() else temporary).write_text("half")
            raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


def test_files_of_an_earlier_form_go_when_theirs_are_there(tmp_path):
    for name in ("model-1-of-2", "model-2-of-2", "model.index", "other"):
        write_text(tmp_path / name, "old")
    with atomic_files(tmp_path, replaces="model*") as folder:
        (folder / "model").write_text("new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"model": "new", "other": "old"}


VALUES = ('"word"', "12", "-0.5", "true", "null", '"\\u00e9, ]"', "[]", "{}", '[1, {"a": 2}]')
# What is put between two items, or before a closing bracket, and how far into it the mistake is.
MISTAKES = {"'x'": 0, "nope": 0, "@": 0, "]": 0, ":": 0, ", ,": 2, "\n\n  ;": 4}


def assert_refused(path, text: str, place: int):
    """An error names the line and column of a place in the text."""
    path.write_text(text)
    line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
    found = text[place : place + 20]
    with pytest.raises(ValueError) as caught:
        read_json(path)
    shown = repr(found) if found else "the end"
    assert str(caught.value) == f"{path}, line {line}, is not valid JSON: column {column}, at {shown}"


def half_a_list(rng: random.Random) -> str:
    """The start of a list or of the values of a mapping, over several lines."""
    space = rng.choice(("", " ", "\n", "\n\t", " \n\n "))
    items = [rng.choice(VALUES) for _ in range(rng.randint(1, 5))]
    if rng.random() < 0.5:
        items = [f'"key{i}":{space}{item}' for i, item in enumerate(items)]
        return "{" + space + f",{space}".join(items)
    return "[" + space + f"{space},{space}".join(items)


@pytest.mark.parametrize("seed", range(20))
def test_a_comma_too_many(tmp_path, seed):
    """Python before 3.13 names the bracket after it, which can be on another line."""
    rng = random.Random(seed)
    start = half_a_list(rng)
    end = "]" if start[0] == "[" else "}"
    text = start + rng.choice(("", " ", "\n")) + "," + rng.choice(("", " ", "\n", "\n\n\t")) + end + "\n"
    assert_refused(tmp_path / "a.json", text, text.rindex(","))


@pytest.mark.parametrize(
    ("message", "place"), [("Expecting value", 16), ("Illegal trailing comma before end of array", 13)]
)
def test_both_ways_to_report_a_comma_too_many(tmp_path, monkeypatch, message, place):
    """Each of them is tried here, whichever is the running Python's."""
    text = '[\n{"pred": 1},\n\n]'

    def refuse(doc, **_):
        raise json.JSONDecodeError(message, doc, place)

    monkeypatch.setattr(json, "loads", refuse)
    assert text[place] in ",]"
    with pytest.raises(ValueError, match=r"a\.json, line 2, is not valid JSON: column 12, at ',\\n\\n\]'$"):
        parse_json(text, tmp_path / "a.json")


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("seed", range(4))
def test_what_does_not_belong_there(tmp_path, mistake, seed):
    start = half_a_list(random.Random(f"{seed} {mistake}"))
    if start[0] == "[" and mistake == "]":
        mistake = "}"
    assert_refused(tmp_path / "a.json", start + mistake, len(start) + MISTAKES.get(mistake, 0))


@pytest.mark.parametrize("seed", range(8))
def test_a_file_that_is_cut_off(tmp_path, seed):
    start = half_a_list(random.Random(seed))
    assert_refused(tmp_path / "a.json", start, len(start))


def test_a_line_of_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jsonl, line 7, is not valid JSON: column 6, at '}'"):
        parse_json('{"a":}', tmp_path / "a.jsonl", first_line=7)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5_000], ids=["deep", "long number"])
def test_what_python_cannot_read(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json, line 1, holds JSON that cannot be read: "):
        read_json(tmp_path / "a.json")


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path))}/a\.json is not a text file in UTF-8"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="No such file: .*none.json"):
        read_json(tmp_path / "none.json")


# All that Python's splitlines takes for the end of a line, and a carriage return, which JSON escapes.
SEPARATORS = [chr(i) for i in range(0x110000) if len(f"a{chr(i)}b".splitlines()) > 1]
TEXTS = [
    *(f"be{c}fore" for c in SEPARATORS),
    "".join(SEPARATORS),
    "日本語 é 🎬",
    "\ud83d half a pair",
    "\ufeff",
]


def test_the_separators_are_those_that_are_known():
    assert {"\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"} == set(SEPARATORS)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_json_lines_are_read_as_they_were_written(tmp_path, text):
    values = [{"text": text}, {text: [text, 1]}, text]
    write_json_lines(tmp_path / "a.jsonl", values)
    for value in values:
        append_json_line(tmp_path / "b.jsonl", value)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert list(read_json_lines(tmp_path / "a.jsonl")) == list(enumerate(values, 1))
    write_json(tmp_path / "c.json", values)
    assert read_json(tmp_path / "c.json") == values


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_line_that_was_cut_anywhere_is_left_out_and_the_next_ones_stay(tmp_path, text):
    path = tmp_path / "a.jsonl"
    values = [{"n": i, "text": text} for i in range(3)]
    write_json_lines(path, values)
    first, second, _ = path.read_bytes().split(b"\n", 2)
    for length in range(len(second) + 1):
        path.write_bytes(first + b"\n" + second[:length])
        append_json_line(path, values[2])
        whole = [values[0], values[2]] if length < len(second) else values
        assert [value for _, value in read_json_lines(path, skip_cut=True)] == whole
        if length not in (0, len(second)):
            with pytest.raises(ValueError, match="a.jsonl.*line 2"):
                list(read_json_lines(path))


@pytest.mark.parametrize(
    ("content", "values"),
    [(b"", []), (b"\n \r\n", []), (b"1\r\n\n2", [(1, 1), (3, 2)]), (b"[1]\n\t\n", [(1, [1])])],
)
def test_blank_lines_and_ends_of_other_systems(tmp_path, content, values):
    (tmp_path / "a.jsonl").write_bytes(content)
    assert list(read_json_lines(tmp_path / "a.jsonl")) == values


@pytest.mark.parametrize(
    "content", ["1\n2\n", "\ufeff1\n2\n", "\ufeff\n1\n2", "1\n\ufeff2\n", "\ufeff1\n\n\ufeff2"]
)
def test_byte_order_marks_are_no_content(tmp_path, content):
    """Files that were joined have one within."""
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    assert [value for _, value in read_json_lines(tmp_path / "a.jsonl")] == [1, 2]


def test_half_of_a_surrogate_pair_is_written_as_its_escape(tmp_path):
    write_text(tmp_path / "a.log", "x\ud800")
    assert (tmp_path / "a.log").read_text(encoding="utf-8") == "x\\ud800"


def test_what_is_no_file_of_lines_is_named(tmp_path):
    with pytest.raises(ValueError, match="No such file: .*none.jsonl"):
        list(read_json_lines(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        list(read_json_lines(tmp_path))
    (tmp_path / "a.jsonl").write_bytes(b"1\n\xff\n")
    with pytest.raises(ValueError, match="a.jsonl is not a text file in UTF-8: line 2"):
        list(read_json_lines(tmp_path / "a.jsonl"))


WRITERS = {
    "text": lambda path: write_text(path, "x" * 100_000),
    "json": lambda path: write_json(path, ["x" * 100_000]),
    "lines": lambda path: write_json_lines(path, ["x" * 100_000]),
    "line": lambda path: append_json_line(path, "x" * 100_000),
    "copy": lambda path: copy_file(Path(torch.__file__), path),
    "features": lambda path: write_features(path.with_suffix(".pkl"), np.ones((100, 1000))),
    "tensors": lambda path: write_features(path.with_suffix(".safetensors"), np.ones((100, 1000))),
    "annotations": lambda path: write_rows(path),
    "torch": lambda path: save_by_torch(path),
}
FAULTS = {
    "no room": (lambda folder: folder / "new/a", lambda folder: no_room(), "File too large|cannot be|error"),
    "not allowed": (lambda folder: folder / "new/a", closed, "Permission denied"),
    "a file for a folder": (lambda folder: folder / "file/new/a", nullcontext, "Not a directory|File exists"),
    "a folder for a file": (lambda folder: folder / "taken", nullcontext, "Is a directory"),
    "a long name": (lambda folder: folder / ("a" * 300), nullcontext, "File name too long"),
    "a long folder": (lambda folder: folder / ("a" * 300) / "b", nullcontext, "File name too long"),
}


def write_rows(path: Path) -> None:
    rng = random.Random(0)
    texts = ("".join(rng.choices("abcdefgh", k=200)) for _ in range(500))
    write_table(path, ((Annotation(video_path="v.mp4", query=text), 1) for text in texts))


def save_by_torch(path: Path) -> None:
    with atomic_path(path) as temporary:
        torch.save(torch.ones(100_000), temporary)


@pytest.mark.parametrize("is_relative", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("writer", WRITERS)
def test_what_cannot_be_written_is_named_from_the_root(writer, fault, is_relative, tmp_path, monkeypatch):
    """Whichever library writes it, and whatever is wrong."""
    path_in, faulty, reason = FAULTS[fault]
    (tmp_path / "file").touch()
    (tmp_path / "taken").mkdir()
    for suffix in (".pkl", ".safetensors"):
        (tmp_path / f"taken{suffix}").mkdir()
    monkeypatch.chdir(tmp_path)
    path = path_in(Path() if is_relative else tmp_path)
    with faulty(tmp_path), pytest.raises(OSError, match=reason) as raised:
        WRITERS[writer](path)
    name = Path(raised.value.filename)
    assert name.is_absolute() and (tmp_path / path_in(Path())).is_relative_to(name.with_suffix(""))
    assert not list(tmp_path.rglob("*.tmp"))
