"""The default tables: moments by recall and overlap, answers by choice."""

import pytest
from helpers.records import evaluate, overall, record

from videomind.eval.scorer import get_scorer
from videomind.eval.scorers.cgbench import CGBenchScorer
from videomind.eval.scorers.default import ODD_PREDICTION, DefaultScorer
from videomind.prediction import Prediction


def test_recall_looks_at_the_first_k_and_the_best_true_window():
    hit_third = record([[50, 60], [30, 40], [0, 10]])
    hit_second_window = record([[20, 26]], span=[(0, 10), (20, 30)])  # IoU 0.6
    values = overall([hit_third, hit_second_window]).values
    assert (values["R1@0.5"], values["R1@0.7"]) == (50, 0)
    assert (values["R3@0.7"], values["R5@0.7"]) == (50, 50)
    assert values["mIoU"] == pytest.approx(30)


def test_a_prediction_beyond_the_fifth_never_counts():
    assert overall([record([[50, 60]] * 5 + [[0, 10]])]).values["R5@0.3"] == 0


@pytest.mark.parametrize("threshold", [3, 5, 7])
def test_an_overlap_equal_to_the_threshold_is_a_hit(threshold):
    """K505."""
    assert overall([record([[0, threshold]])]).values[f"R1@0.{threshold}"] == 100


def test_iop_divides_by_the_prediction_and_is_0_without_length():
    """K506."""
    inside, point = record([[2, 4]]), record([[3, 3]])
    values = overall([inside, point], "iop").values
    assert values["mIoP"] == 50
    assert overall([inside, point]).values["mIoU"] == pytest.approx(10)


@pytest.mark.parametrize("empty", [record([]), record([[0, 10]], span=[]), record([], span=[])])
@pytest.mark.parametrize("scorer", [DefaultScorer(), CGBenchScorer()], ids=lambda s: s.name)
def test_empty_windows_or_predictions_score_0(empty, scorer):
    """D502."""
    scores = overall([record([[0, 10]]), empty], scorer=scorer)
    assert scores.samples == 2
    assert scores.values["mIoU"] == 50 and scores.values["R1@0.5"] == 50


def test_the_verifier_raises_and_lowers():
    rows = [
        record([[0, 10]], pred_ori=[[0, 5], [0, 10]]),
        record([[0, 4]], pred_ori=[[0, 9]]),
        record([[0, 4]], pred_ori=[[0, 4]]),
        record([[0, 10]], pred_ori=None),
    ]
    evaluation = evaluate(rows)
    assert (evaluation.tables["iou"].overall.raised, evaluation.tables["iou"].overall.lowered) == (1, 1)
    assert (evaluation.tables["iop"].overall.raised, evaluation.tables["iop"].overall.lowered) == (0, 0)


def test_a_record_counts_in_each_of_its_tasks_and_once_in_all():
    table = evaluate([record([[0, 10]], task=["b", "a"]), record([[50, 60]], task="a"), record([])]).tables[
        "iou"
    ]
    assert {task: scores.samples for task, scores in table.tasks.items()} == {"a": 2, "b": 1, "unknown": 1}
    assert list(table.tasks) == ["a", "b", "unknown"]
    assert table.overall.samples == 3
    assert table.tasks["a"].values["R1@0.7"] == 50


def test_only_a_failure_that_is_said_counts():
    rows = [record([[0, 1]], grounder_success=flag) for flag in (True, False)] + [record([[0, 1]])]
    assert overall(rows).failed == 1


def test_grounded_accuracy():
    question = {"options": ["x", "y"], "ans": "A"}
    rows = [
        record([[0, 10]], response="A", **question),
        record([[2, 4]], response="(a) x", **question),  # IoU 0.2, IoP 1
        record([[0, 10]], response="B", **question),
        {"response": "Z", **question},
    ]
    scores = overall(rows, "qa")
    assert (scores.samples, scores.failed) == (4, 1)
    assert list(scores.values.values()) == [50, 25, 50]


def test_a_labelled_record_without_prediction_scores_0_and_is_counted():
    evaluation = evaluate([record([[0, 10]]), {"span": [[0, 10]]}])
    assert evaluation.without["pred"] == 1
    assert evaluation.tables["iou"].overall.values["mIoU"] == 50


def test_a_stage_that_did_not_run_has_no_samples():
    answered = {"span": [[0, 10]], "options": ["x"], "ans": "A", "response": "A"}
    evaluation = evaluate([answered])
    assert (evaluation.tables["iou"].overall.samples, evaluation.without["pred"]) == (0, 0)
    assert evaluation.tables["qa"].overall.samples == 1


def test_repeated_annotations_are_counted():
    rows = [record([[0, 10]], qid=1), record([[0, 5]], qid=1), record([[0, 5]], qid=2)]
    assert evaluate(rows).repeated == 1


def test_without_any_ground_truth_nothing_is_scored():
    evaluation = evaluate([{"pred": [[0, 1]]}, {"pred": [[0, 1]], "options": ["x"], "response": "A"}])
    assert evaluation.unlabelled == 2
    assert evaluation.tables["iou"].overall.samples == evaluation.tables["qa"].overall.samples == 0


def test_records_without_ground_truth_are_left_out_and_counted():
    evaluation = evaluate([record([[0, 10]], task="a"), {"pred": [[0, 1]], "task": "b"}])
    assert (evaluation.records, evaluation.unlabelled) == (2, 1)
    assert overall([record([[0, 10]]), {"pred": [[0, 1]]}]).samples == 1
    assert [scores.samples for scores in evaluation.tables["iou"].tasks.values()] == [1, 0]


# What can be wrong with the answer of a question, and whether the row counts.
@pytest.mark.parametrize(
    ("fields", "samples", "odd"),
    [
        ({"options": ["x", "y"], "answer": "x", "ans": "A"}, 2, 0),
        ({"options": ["x", "y"], "answer": "x", "ans": "a"}, 2, 0),
        ({"options": ["x", "y"], "answer": "z"}, 1, 1),  # as in MLVU's needle task
        ({"options": [], "answer": "z"}, 1, 1),
        ({"options": ["x", "y"], "answer": "z", "ans": "C"}, 2, 1),
        ({"options": ["x", "y"], "ans": "AB"}, 2, 1),
        ({"options": ["x", "y"], "ans": ""}, 2, 1),
        ({"options": ["x", "y"]}, 1, 0),  # no ground truth at all
        ({"answer": "x", "ans": "A"}, 1, 0),  # nothing to choose from
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_an_answer_that_is_none_of_the_options_is_counted_and_no_error(fields, samples, odd, place):
    good = {"options": ["x", "y"], "answer": "x", "ans": "A", "response": "A"}
    rows = [good, good]
    rows[place] = {**fields, "response": "A"}
    evaluation = evaluate(rows)
    assert evaluation.tables["qa"].overall.samples == samples
    assert evaluation.unlabelled == 2 - samples
    assert sum(evaluation.odd.values()) == odd


@pytest.mark.parametrize(
    ("span", "pred", "odd"),
    [
        ([[-3, -1]], [[0, 1]], ["moment begins before the video"]),
        ([[0, 1], [-1, 2]], [[0, 1]], ["moment begins before the video"]),
        ([[2, 1]], [[0, 1]], ["moment ends before it starts, or at once"]),
        ([[2, 2]], [[0, 1]], ["moment ends before it starts, or at once"]),
        ([[9, 10.1]], [[0, 1]], []),
        ([[9, 11]], [[0, 1]], ["moment reaches beyond the video's end"]),
        ([[float("nan"), 1]], [[0, 1]], ["moment with an end that is no number"]),
        ([[0, 1]], [[-1, 1]], [ODD_PREDICTION]),
        ([[0, 1]], [[1, 1], [2, 1]], [ODD_PREDICTION]),
        ([[0, 1]], [[0, float("inf")]], [ODD_PREDICTION]),
        ([[0, 1]], [[1, 1]], []),
        (None, [[0, 1]], []),
    ],
)
@pytest.mark.parametrize("scorer", ["default", "cgbench", "qvhighlights"])
def test_odd_moments_are_counted_and_said(scorer, span, pred, odd):
    rows = [Prediction.from_json({"span": span, "pred": pred, "duration": 10.1}) for _ in range(2)]
    outcome = get_scorer(scorer)().report(rows)
    assert outcome.content["odd"] == dict.fromkeys(odd, 2)
    assert all(any(reason in remark for remark in outcome.remarks) for reason in odd)


@pytest.mark.parametrize("span", [{}, 0, "", False, [1, 2], {"a": 1}, [[1, 10**400]], [[1, 2**70]]])
def test_true_moments_of_another_form_are_an_error_with_its_place(span):
    prediction = Prediction.from_json({"span": span, "pred": [[0, 1]]})
    with pytest.raises(ValueError, match=r"out:3: 'span' is .*expected \[\[start, end\], \.\.\.\]"):
        DefaultScorer().evaluate([prediction], ["out:3"])


def test_one_record_scores_by_itself():
    """What a report of single samples shows; the tables are means of it."""
    scorer = DefaultScorer()
    question = {"options": ["x", "y"], "ans": "A", "response": "A"}
    both = Prediction.from_json(record([[0, 6], [0, 10]], **question))
    marks = scorer.score_record(both)
    assert marks.keys() == {"iou", "iop", "qa"}
    assert marks["iou"].values["R1@0.5"] == 100 and marks["iou"].values["R1@0.7"] == 0
    assert marks["iou"].values["R3@0.7"] == 100
    assert marks["iou"].values["mIoU"] == pytest.approx(60) and marks["iop"].values["mIoP"] == 100
    assert list(marks["qa"].values.values()) == [100, 100, 100]
    assert scorer.score_record(Prediction.from_json({"pred": [[0, 1]]})) == {}
