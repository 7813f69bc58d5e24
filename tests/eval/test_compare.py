"""One table of several judged runs."""

import json

import pytest

from videomind.eval.compare import main


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
