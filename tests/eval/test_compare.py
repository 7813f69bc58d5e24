"""One table of several runs: of moments, of answers, and of what a judge said."""

import json
from pathlib import Path

import pytest
from helpers.records import record

from videomind.eval.compare import main
from videomind.files import write_json_lines
from videomind.prediction import PredictedSplit


def metrics(path, criterion, accuracy, score):
    path.write_text(
        json.dumps({"criterion": criterion, "accuracy": accuracy, "average_score": score, "scored": 8})
    )
    return str(path)


def test_judged_runs_in_one_table(tmp_path, capsys):
    before = metrics(tmp_path / "a.json", "zero_shot_qa", 0.125, 0.6)
    after = metrics(tmp_path / "b.json", "zero_shot_qa", 0.875, 4.4)
    plain = metrics(tmp_path / "c.json", "detail", None, 3.0)
    runs = [f"before={before}", f"after={after}", f"other={plain}"]
    assert main(["--judged", *runs, "--out", str(tmp_path / "out.json")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["zero_shot_qa", "before", "12.5", "0.6", "8"] in lines
    assert ["zero_shot_qa", "after", "87.5", "4.4", "8"] in lines
    assert ["detail", "other", "-", "3.0", "8"] in lines
    assert json.loads((tmp_path / "out.json").read_text())["zero_shot_qa"]["after"]["accuracy"] == 87.5


@pytest.mark.parametrize("text", ["[]", '{"accuracy": 1}'])
def test_another_file_is_refused_by_name(tmp_path, capsys, text):
    (tmp_path / "a.json").write_text(text)
    assert main(["--judged", f"before={tmp_path / 'a.json'}"]) == 2
    assert "a.json does not hold the metrics of a judge" in capsys.readouterr().err


def run(folder: Path, source: str, *ends: float, split: str | None = None, **fields) -> Path:
    """A run whose predictions of [0, 10] are [0, end]."""
    rows = [record([[0, end]], source=source, qid=i, vid="v") | fields for i, end in enumerate(ends)]
    write_json_lines(folder / "output.jsonl", rows)
    if split is not None:
        names = {"dataset": source, "split": split, "scorer": "default"}
        PredictedSplit(**names, samples=len(rows), dropped={}).write(folder)
    return folder


def compared(tmp_path: Path, *argv: str) -> dict:
    """What the command writes."""
    assert main([*argv, "--out", str(tmp_path / "out.json")]) == 0
    return json.loads((tmp_path / "out.json").read_text())


def test_data_sets_below_a_folder_each_have_a_line(tmp_path, capsys):
    for label, end in (("a", 10), ("b", 5)):
        run(tmp_path / label / "x", "star", end, split="valid")
        run(tmp_path / label / "y/deep", "tacos", end, end)
    table = compared(tmp_path, f"first={tmp_path / 'a'}", f"second={tmp_path / 'b'}")
    assert {name: {label: row["mIoU"] for label, row in runs.items()} for name, runs in table.items()} == {
        "star": {"first": 100, "second": 50},
        "tacos": {"first": 100, "second": 50},
    }
    assert table["tacos"]["first"]["samples"] == 2
    assert ["star", "first", "100.0", "100.0", "100.0", "100.0", "1"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]


def test_a_file_is_a_run_too(tmp_path):
    table = compared(tmp_path, f"a={run(tmp_path / 'a', 'star', 10) / 'output.jsonl'}")
    assert table["star"]["a"]["samples"] == 1


def test_two_splits_do_not_meet(tmp_path):
    """As eval_qvhighlights.sh leaves them: the test split has no ground truth."""
    run(tmp_path / "a/valid", "qvhighlights", 10, 5, split="valid")
    run(tmp_path / "a/test", "qvhighlights", 10, 10, 10, split="test", span=None)
    run(tmp_path / "b", "qvhighlights", 5, 5, split="valid")
    table = compared(tmp_path, f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}")
    assert table["qvhighlights valid"]["a"]["mIoU"] == 75 and table["qvhighlights valid"]["b"]["mIoU"] == 50
    assert table["qvhighlights test"] == {
        "a": {"R1@0.3": None, "R1@0.5": None, "R1@0.7": None, "mIoU": None, "samples": 3}
    }


@pytest.mark.parametrize("split", [None, "valid"])
def test_a_run_within_a_run_counts_once(tmp_path, capsys, split):
    outer = run(tmp_path / "a", "star", 10, split=split)
    run(outer / "older/one", "star", 5, 5, split=split)
    run(outer / "other", "tacos", 5, split=split)
    table = compared(tmp_path, f"a={outer}")
    assert table["star"]["a"]["samples"] == 1 and table["star"]["a"]["mIoU"] == 100
    assert table["tacos"]["a"]["mIoU"] == 50
    assert "older/one/output.jsonl is left out: it lies within the run of" in capsys.readouterr().err


def test_two_runs_side_by_side_are_not_mixed(tmp_path, capsys):
    run(tmp_path / "a/one", "star", 10)
    run(tmp_path / "a/two", "star", 5)
    assert main([f"a={tmp_path / 'a'}"]) == 2
    said = capsys.readouterr().err
    assert "one/output.jsonl and" in said and "two/output.jsonl are both predictions of star" in said


def test_a_run_that_is_not_finished_is_named(tmp_path, capsys):
    run(tmp_path / "a/done", "star", 10, split="valid")
    run(tmp_path / "a/going", "tacos", 10, split="test")
    (tmp_path / "a/going/output.jsonl").unlink()
    (tmp_path / "a/going/settings.json").write_text('{"dataset": "tacos"}')
    assert compared(tmp_path, f"a={tmp_path / 'a'}").keys() == {"star"}
    assert "going is left out: the run is not finished" in capsys.readouterr().err


def test_each_data_set_has_the_columns_of_its_scorer(tmp_path, capsys):
    asked = {"options": ["x", "y"], "ans": "A", "response": "A", "task": "t"}
    run(tmp_path / "a/x", "cgbench", 5, **asked)
    run(tmp_path / "a/y", "nextgqa", 10, **asked)
    moments = compared(tmp_path, f"a={tmp_path / 'a'}")
    assert moments["cgbench"]["a"] == {"mIoU": 50, "rec.@IoU": 100, "samples": 1}
    assert moments["nextgqa"]["a"]["R1@0.7"] == 100
    head, _, clues, _ = capsys.readouterr().out.splitlines()
    assert head.split()[3:] == ["mIoU", "rec.@IoU", "samples", "R1@0.3", "R1@0.5", "R1@0.7"]
    assert clues.split()[2:] == ["50.0", "100.0", "1", "-", "-", "-"]
    answers = compared(tmp_path, "--questions", f"a={tmp_path / 'a'}")
    assert answers["cgbench t"]["a"]["long-acc."] == answers["nextgqa t"]["a"]["Acc@GQA"] == 100


def test_figures_of_a_stage_that_did_not_run_are_none(tmp_path):
    asked = {"options": ["x", "y"], "ans": "A", "response": "B", "pred": None, "agents": ["answerer"]}
    table = compared(tmp_path, "--questions", f"a={run(tmp_path / 'a', 'star', 1, 2, **asked)}")
    row = table["star all"]["a"]
    assert row == {
        **{"accuracy": 0, "Acc@GQA": 0, "R1@0.5": None, "mIoU": None, "mIoP": None},
        **{"grounded": 0, "samples": 2},
    }


def test_failures_are_counted_where_there_are_any(tmp_path):
    run(tmp_path / "a", "star", 10, 10)
    rows = [record([[0, 10]], source="star"), {"source": "star", "span": [[0, 1]], "error": "broken"}]
    write_json_lines(tmp_path / "b/output.jsonl", rows)
    table = compared(tmp_path, f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}")["star"]
    assert "failed" not in table["a"] and table["b"]["failed"] == 1 and table["b"]["mIoU"] == 50
