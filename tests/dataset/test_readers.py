"""Annotation files to rows, and text clean-up."""

import pytest

from videomind.dataset.readers import clean_query, clean_question, read_rows


@pytest.mark.golden
def test_text(golden):
    cases = golden.json("units/parse_text.json")
    assert cases
    for case in cases:
        assert clean_query(case["text"]) == case["parse_query"], case
        assert clean_question(case["text"]) == case["parse_question"], case


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
    ("name", "content", "message"),
    [
        ("a.json", b"{", r"a\.json is not valid JSON: .*line 1"),
        ("a.json", b"3", "holds a int, expected a list or a mapping"),
        ("a.jsonl", b'{"a": 1}\nnope\n', r"a\.jsonl, line 2, is not valid JSON"),
        ("a.txt", b"\xff\xfe", "not a text file in UTF-8"),
        ("a.xml", b"", r"unknown extension '\.xml'\. Allowed: \.json, \.jsonl, \.txt"),
    ],
)
def test_errors_name_file_and_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_rows(tmp_path / name))


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="No annotation file"):
        read_rows(tmp_path / "none.json")
