"""CG-Bench's tables: all clues of a question count together."""

import pytest
from helpers.records import evaluate, overall, record

from videomind.eval.scorers.cgbench import CGBenchScorer


def test_cgbench_takes_the_union_with_all_clues_and_confident_predictions():
    row = record([[0, 10], [20, 30], [40, 50]], span=[(0, 10), (20, 30)], conf=[0.1, 0.6, 0.5])
    top1, joined = (overall([row], scorer=CGBenchScorer(t)).values for t in (0.0, 0.5))
    assert top1["mIoU"] == 50  # K505: a threshold of 0 is "off"
    assert joined["mIoU"] == 100


def test_cgbench_counts_overlapping_windows_twice():
    row = record([[0, 10]], span=[(0, 10), (0, 10)])
    assert overall([row], scorer=CGBenchScorer()).values["mIoU"] == pytest.approx(200)


def test_cgbench_means_over_thresholds():
    row = record([[0, 3.5]], options=["x", "y"], ans="A", response="A")  # hits 0.1, 0.2 and 0.3
    evaluation = evaluate([row, {**row, "response": "B"}], CGBenchScorer())
    assert evaluation.tables.keys() == {"iou", "qa"}
    assert evaluation.tables["iou"].overall.values["rec.@IoU"] == 60
    assert list(evaluation.tables["qa"].overall.values.items()) == [("long-acc.", 50), ("acc.@IoU", 30)]
