"""A benchmark from a folder outside of the package: one source, one scorer, and the command scores it."""

import json
import re
import subprocess
import sys

import pytest
from helpers.runs import REPO, environment

from videomind.eval import scorer as registry
from videomind.eval.scorer import get_scorer, spec_of
from videomind.prediction import PredictedSplit, Prediction

SOURCE = '''"""Counting: how often something happens."""

from videomind.dataset.base import Source
from videomind.dataset.views import Answering


class Counting(Source):
    """Questions about numbers. A row: `{"video": "a", "question": "how often?", "count": 3}`"""

    names = {"counting": Answering}
    splits = {"test": "counting.jsonl"}
    video_root = "videos"
    scorer = "counting_scorer:CountingScorer"

    def parse(self, row, split):
        return self.asked(row["video"], row["question"], meta={"count": row["count"]})
'''
SCORER = '''"""How far off counts are."""

import re

from videomind.eval.scorer import Scorer, Submission
from videomind.eval.tables import Marks, TableForm


class CountingScorer(Scorer):
    """Compares the first number of an answer with the true one."""

    name = "counting"
    tables = {"count": TableForm(title="Counting", columns=("exact", "error"), field="response")}

    def score_record(self, prediction):
        if "count" not in prediction.annotation:
            return {}
        numbers = re.findall("[0-9]+", prediction.response or "")
        error = abs(int(numbers[0] if numbers else 0) - prediction.annotation["count"])
        values = {"exact": 100.0 * (error == 0), "error": error}
        return {"count": Marks(values=values, failed=not numbers)}

    def submission(self, predictions, split):
        rows = [{"count": prediction.response} for prediction in predictions]
        return Submission(file_name=f"counting_{split}.jsonl", rows=rows)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch, own_registry):
    """A folder with both files and the predictions of three questions."""
    (tmp_path / "counting_source.py").write_text(SOURCE)
    (tmp_path / "counting_scorer.py").write_text(SCORER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    yield tmp_path
    for name in ("counting_source", "counting_scorer"):
        sys.modules.pop(name, None)


def test_a_source_and_a_scorer_are_small():
    assert len(SOURCE.splitlines()) <= 40 and len(SCORER.splitlines()) <= 60


def test_a_benchmark_of_ones_own_is_scored_by_the_command(folder):
    import counting_source

    (folder / "counting.jsonl").write_text(
        "".join(json.dumps({"video": f"{i}", "question": "how often?", "count": i}) + "\n" for i in range(3))
    )
    source = counting_source.Counting("counting", folder)
    out = folder / "out"
    loaded = source.load("test")
    scorer = spec_of(get_scorer(source.scorer))
    PredictedSplit(dataset="counting", split="test", scorer=scorer, samples=3, dropped={}).write(out)
    rows = [anno.to_dict() | {"response": "2 times"} for anno in loaded.annotations]
    rows[0]["response"] = "never"
    (out / "output.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for extra in ((), ("--dataset", scorer)):
        run = subprocess.run(
            [sys.executable, "-m", "videomind.eval.evaluate", str(out), *extra],
            env=environment(PYTHONPATH=f"{folder}:{environment()['PYTHONPATH']}"),
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        assert "Counting:" in run.stdout and "| all     | 3        | 1      | 66.67 | 0.33  |" in run.stdout
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["count"]["overall"] == {
            "samples": 3,
            "failed": 1,
            "values": {"exact": pytest.approx(200 / 3), "error": pytest.approx(1 / 3)},
            "raised": 0,
            "lowered": 0,
        }
    assert len((out / "counting_test.jsonl").read_text().splitlines()) == 3


def test_the_scorer_of_the_guide_works(folder):
    """The second piece of code in docs/CUSTOM_DATASET.md."""
    _, code = re.findall(r"```python\n(.*?)```", (REPO / "docs/CUSTOM_DATASET.md").read_text(), re.DOTALL)
    (folder / "counting_scorer.py").write_text(code)
    scorer = get_scorer("counting_scorer:CountingScorer")()
    rows = [{"count": 2, "response": "2"}, {"count": 3, "response": "2"}, {"response": "2"}]
    scores = scorer.evaluate([Prediction.from_json(row) for row in rows]).tables["count"].overall
    assert (scores.samples, scores.values) == (2, {"exact": 50.0})


def test_a_name_twice_is_refused(folder):
    import counting_scorer

    assert get_scorer("counting") is counting_scorer.CountingScorer
    with pytest.raises(ValueError, match="Scorer name 'counting' of .* is taken by counting_scorer"):
        type("Other", (counting_scorer.CountingScorer,), {"name": "counting"})
