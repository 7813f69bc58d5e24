"""Annotation files to rows, and text clean-up.

Covers `plain_pickle.py`.
"""

import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pyarrow as pa
import pytest
from helpers.goldens import golden_rows
from pyarrow import parquet

from videomind.dataset.phrases import clean_query, clean_question
from videomind.dataset.readers import read_pickle, read_rows


@pytest.mark.golden
@pytest.mark.parametrize("case", golden_rows("units/parse_text.json"))
def test_text(case):
    assert clean_query(case["text"]) == case["parse_query"]
    assert clean_question(case["text"]) == case["parse_question"]


def test_formats(tmp_path):
    (tmp_path / "a.json").write_text('{"x": 1, "y": 2}')
    (tmp_path / "b.json").write_text("[1, 2]")
    (tmp_path / "c.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    (tmp_path / "d.txt").write_text("one\r\ntwo\n")
    rows = {name: list(read_rows(tmp_path / name)) for name in ("a.json", "b.json", "c.jsonl", "d.txt")}
    assert rows["a.json"] == [("x", 1), ("y", 2)]
    assert rows["b.json"] == [1, 2]
    assert rows["c.jsonl"] == [{"a": 1}, {"a": 2}]
    assert rows["d.txt"] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.json", '["é"]', ["é"]),
        ("a.json", '{"é": 1}', [("é", 1)]),
        ("a.jsonl", '"é"\n', ["é"]),
        ("a.txt", "é\n", ["é"]),
        ("a.csv", "é,b\n1,2\n", [{"é": "1", "b": "2"}]),
    ],
)
def test_a_byte_order_mark_is_no_content(tmp_path, name, content, rows):
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert list(read_rows(tmp_path / name)) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", r"a\.json, line 1, is not valid JSON: column 2, at the end"),
        ("a.json", b"3", "holds a int, expected a list or a mapping"),
        ("a.jsonl", b'{"a": 1}\nnope\n', r"a\.jsonl, line 2, is not valid JSON: column 1, at 'nope'"),
        ("a.txt", b"\xff\xfe", "not a text file in UTF-8"),
        ("a.csv", b"x,y\n1,2\n3\n", r"a\.csv, line 3, does not have the columns of the header"),
        ("a.csv", b"x,y\n1,2,3\n", r"a\.csv, line 2, does not have the columns"),
        ("a.csv", b'x,y\n1,"2\n', r"a\.csv, after line 1, is not valid CSV"),
        ("a.csv", b"x\n\xff\n", "not a text file in UTF-8"),
        ("a.parquet", b"PAR1", r"a\.parquet is not a Parquet file"),
        ("a.pkl", b"", r"a\.pkl is refused: Ran out of input"),
        ("a.pkl", pickle.dumps(3), "holds a int, expected a list or a mapping"),
        ("a.xml", b"", r"unknown extension '\.xml'\. Allowed: \.csv, \.json, \.jsonl, "),
    ],
)
def test_errors_name_file_and_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_rows(tmp_path / name))


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="No annotation file"):
        read_rows(tmp_path / "none.json")


def test_tables(tmp_path):
    (tmp_path / "a.csv").write_text('\ufeffx,y\n1,"two\nlines"\n', encoding="utf-8")
    assert list(read_rows(tmp_path / "a.csv")) == [{"x": "1", "y": "two\nlines"}]
    rows = [{"x": 1, "options": ["a", "b"]}, {"x": 2, "options": []}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    assert list(read_rows(tmp_path / "b.parquet")) == rows


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_plain_data(tmp_path, protocol):
    value = {
        "words": [("a", "dog"), {1, 2}, b"x", None, 1.5, 2j],
        "order": OrderedDict(a=1),
        "array": np.arange(6, dtype=np.float16).reshape(2, 3),
        "number": np.float64(0.5),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    read = read_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(read.pop("array"), value.pop("array"))
    assert read == value
    assert [name for name, _ in read_rows(tmp_path / "a.pkl")] == ["words", "order", "array", "number"]


@pytest.mark.parametrize("protocol", (0, 2, pickle.HIGHEST_PROTOCOL))
@pytest.mark.parametrize("code", ["?", "i8", ">f4", "f2", "c16", "U5", "S3", "O"])
def test_pickled_arrays_of_all_types(tmp_path, protocol, code):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(code)
    for value in (array, np.asfortranarray(array), array[:0], array[0]):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
        read = read_pickle(tmp_path / "a.pkl")
        np.testing.assert_array_equal(read, pickle.loads(pickle.dumps(value, protocol=protocol)), strict=True)


def test_a_false_type_does_not_reach_numpy(tmp_path):
    """numpy's own dtype believes the state that a pickle gives it, and crashes."""
    whole = pickle.dumps(np.arange(12, dtype=np.float16), protocol=4)
    nothing = whole.index(b"NNNJ")
    for place in range(nothing, nothing + 3):
        for other in (b"\x88", b"}", b")", b"]"):  # True and empty containers
            (tmp_path / "a.pkl").write_bytes(whole[:place] + other + whole[place + 1 :])
            with pytest.raises(ValueError, match=r"a\.pkl is refused: it holds an array of records"):
                read_pickle(tmp_path / "a.pkl")


class Harmful:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Harmful(os.system, "touch harmed"), "posix.system"),
        (Harmful(eval, "open('harmed', 'w')"), "builtins.eval"),
        (Harmful(getattr, "x", "upper"), "builtins.getattr"),
        (Harmful(np.load, "harmed"), "numpy.load|numpy.lib"),
        (np.array([Harmful(os.system, "touch harmed")], dtype=object), "posix.system"),
        (io.StringIO("x"), "_io.StringIO"),
    ],
    ids=["system", "eval", "getattr", "load", "array of objects", "another class"],
)
def test_pickles_of_anything_else_are_refused(tmp_path, monkeypatch, payload, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match=rf"bad\.pkl is refused: it refers to ({name})"):
        read_pickle(tmp_path / "bad.pkl")
    assert not (tmp_path / "harmed").exists()
