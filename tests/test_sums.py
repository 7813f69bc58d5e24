"""Figures that do not depend on how the running Python's `sum` rounds."""

import builtins
import math
import random
from collections.abc import Iterable

import pytest

from videomind.dataset.base import get_source
from videomind.eval.scorers.cgbench import CGBenchScorer
from videomind.prediction import Prediction
from videomind.spans import plain_mean, plain_sum

SEEDS = range(20)
python_sum = builtins.sum


def rounded_each_time(values: Iterable, start=0):
    """`sum` up to Python 3.11."""
    for value in values:
        start = start + value
    return start


def compensated(values: Iterable, start=0):
    """`sum` from Python 3.12 on, or better: nothing of a float is lost."""
    values = list(values)
    return (
        math.fsum([start, *values])
        if any(isinstance(v, float) for v in values)
        else python_sum(values, start)
    )


def under_both(monkeypatch, compute):
    """What a function gives with either `sum`."""
    found = []
    for way in (rounded_each_time, compensated):
        with monkeypatch.context() as patch:
            patch.setattr(builtins, "sum", way)
            found.append(compute())
    return found


def test_each_addition_is_rounded():
    assert plain_sum([0.1] * 10) == 0.9999999999999999 != math.fsum([0.1] * 10)
    assert plain_sum([1e16, 1.0, -1e16]) == 0.0 != math.fsum([1e16, 1.0, -1e16])
    assert plain_mean([0.1] * 10) == 0.09999999999999999
    assert plain_sum([]) == 0 and isinstance(plain_sum([1, 2]), int)


@pytest.mark.parametrize("seed", SEEDS)
def test_left_to_right(seed):
    rng = random.Random(seed)
    values = [rng.uniform(-1, 1) * 10 ** rng.randint(-8, 8) for _ in range(rng.randint(2, 40))]
    assert plain_sum(values) == rounded_each_time(values)
    assert plain_mean(tuple(values)) == rounded_each_time(values) / len(values)


def videoxum_spans(pairs: list[list[float]]) -> list[list[float]]:
    """The spans of a sentence with these moments."""
    row = {"video_id": "v_a", "duration": 1000, "tsum": ["x"], "vsum": [pairs]}
    return [anno.span for anno in get_source("videoxum").parse(row, "train")]


def test_moments_of_videoxum_average_the_same_everywhere(monkeypatch):
    """Halves of a hundredth: which way they round depends on the last digit of the sum."""
    rng = random.Random(0)
    differing = 0
    for _ in range(300):
        ends = [round(rng.uniform(0, 40), 2) for _ in range(10)]
        ends[-1] = round(ends[-1] + (5 - round(100 * math.fsum(ends))) % 10 / 100, 2)
        pairs = [[0, end] for end in ends]
        old, new = under_both(monkeypatch, lambda pairs=pairs: videoxum_spans(pairs))
        expected = round(rounded_each_time(ends) / 10, 2)
        assert old == new == [[[0.0, expected]]]
        differing += expected != round(math.fsum(ends) / 10, 2)
    assert differing > 10


def test_means_over_thresholds_are_the_same_everywhere(monkeypatch):
    rng = random.Random(0)
    for count in range(3, 40):
        rows = [
            {
                "span": [[0.0, 10.0]], "pred": [[0.0, rng.uniform(0, 10)]], "options": ["x", "y"], "ans": "A",
                "response": rng.choice("AB"),
            }
            for _ in range(count)
        ]  # fmt: skip
        predictions = [Prediction.from_json(row) for row in rows]
        old, new = under_both(monkeypatch, lambda rows=predictions: CGBenchScorer().evaluate(rows))
        assert old.tables == new.tables
        values = new.tables["iou"].overall.values
        recalls = [v for name, v in values.items() if name.startswith("R1@")]
        assert values["rec.@IoU"] == pytest.approx(rounded_each_time(recalls) / len(recalls), rel=1e-14)
