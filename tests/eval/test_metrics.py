"""Scores of prediction records, against the original's and by hand."""

import pytest
import torch
from helpers.goldens import golden_manifest

from videomind.eval.metrics import CGBENCH, check_ans, compute_iou, evaluate, grounding_metrics, union_iou

INLINE = [c["id"] for c in golden_manifest("eval")["cases"] if c["inputs"] == "inline"]


def compare_check_ans(case: dict) -> None:
    """One row of the answer cases."""
    ours = check_ans(case["response"], num_options=case["num_options"], ans=case["ans"])
    # D501: where the original crashes (its exception's name is recorded), the answer is unparsable.
    crashed = isinstance(case["result"], str)
    assert ours is (None if crashed else case["result"]), case


def compare_compute_iou(case: dict) -> None:
    """One row of the overlap cases."""
    pred, truth = torch.tensor(case["pred"]), torch.tensor(case["span"])
    if case["cgbench"]:
        ours = [union_iou(pred, truth, conf=torch.tensor(case["conf"]), conf_thr=case["conf_thr"])]
    else:
        ours = compute_iou(pred, truth)
    torch.testing.assert_close(torch.as_tensor(ours), torch.tensor(case["iou"]), atol=1e-5, rtol=1e-5)


COMPARE = {"check_ans": compare_check_ans, "compute_iou": compare_compute_iou}


@pytest.mark.golden
@pytest.mark.parametrize("case_id", INLINE)
def test_inline_cases_of_the_original(golden, case_id):
    entry = golden.case("eval", case_id)
    rows = golden.json(f"eval/{entry['outputs']}")
    assert rows
    for row in rows:
        COMPARE[entry["how"].split("(")[0]](row)


def record(pred, span=((0.0, 10.0),), **fields) -> dict:
    """A record with true windows and predictions as the files have them."""
    return {"span": [list(s) for s in span], "pred": [list(p) for p in pred], **fields}


def overall(records, table="iou", **kwargs):
    """The overall row of a table."""
    return getattr(evaluate(records, **kwargs), table).overall


@pytest.mark.parametrize("response", ["", ".", "( )", " A", None])
def test_an_answer_without_a_first_letter_is_unparsable(response):
    """D501."""
    assert check_ans(response, num_options=4, ans="A") is None


@pytest.mark.parametrize(
    ("response", "right"),
    [("(b) two", True), (".b", True), ("Because", True), ("C", False), ("The B", None), ("E", None)],
)
def test_only_the_first_letter_of_an_answer_counts(response, right):
    """K504."""
    assert check_ans(response, num_options=4, ans="B") is right


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
@pytest.mark.parametrize("mode", [{}, {"mode": CGBENCH}])
def test_empty_windows_or_predictions_score_0(empty, mode):
    """D502."""
    scores = overall([record([[0, 10]]), empty], **mode)
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
    assert (evaluation.iou.overall.raised, evaluation.iou.overall.lowered) == (1, 1)
    assert (evaluation.iop.overall.raised, evaluation.iop.overall.lowered) == (0, 0)


def test_a_record_counts_in_each_of_its_tasks_and_once_in_all():
    table = evaluate([record([[0, 10]], task=["b", "a"]), record([[50, 60]], task="a"), record([])]).iou
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


def test_cgbench_takes_the_union_with_all_clues_and_confident_predictions():
    row = record([[0, 10], [20, 30], [40, 50]], span=[(0, 10), (20, 30)], conf=[0.1, 0.6, 0.5])
    top1, joined = (overall([row], mode=CGBENCH, conf_thr=t).values for t in (0.0, 0.5))
    assert top1["mIoU"] == 50  # K505: a threshold of 0 is "off"
    assert joined["mIoU"] == 100
    assert overall([row], conf_thr=0.5).values["mIoU"] == 100  # outside CG-Bench it is ignored


def test_cgbench_counts_overlapping_windows_twice():
    """K505."""
    row = record([[0, 10]], span=[(0, 10), (0, 10)])
    assert overall([row], mode=CGBENCH).values["mIoU"] == pytest.approx(200)


def test_cgbench_means_over_thresholds():
    row = record([[0, 3.5]], options=["x", "y"], ans="A", response="A")  # hits 0.1, 0.2 and 0.3
    evaluation = evaluate([row, {**row, "response": "B"}], mode=CGBENCH)
    assert evaluation.iop is None
    assert evaluation.iou.overall.values["rec.@IoU"] == 60
    assert list(evaluation.qa.overall.values.items()) == [("long-acc.", 50), ("acc.@IoU", 30)]


def test_a_labelled_record_without_prediction_scores_0_and_is_counted():
    evaluation = evaluate([record([[0, 10]]), {"span": [[0, 10]]}])
    assert evaluation.without_pred == 1
    assert evaluation.iou.overall.values["mIoU"] == 50


def test_a_stage_that_did_not_run_has_no_samples():
    answered = {"span": [[0, 10]], "options": ["x"], "ans": "A", "response": "A"}
    evaluation = evaluate([answered])
    assert (evaluation.iou.overall.samples, evaluation.without_pred) == (0, 0)
    assert evaluation.qa.overall.samples == 1


def test_repeated_annotations_are_counted():
    rows = [record([[0, 10]], qid=1), record([[0, 5]], qid=1), record([[0, 5]], qid=2)]
    assert evaluate(rows).repeated == 1


def test_without_any_ground_truth_nothing_is_scored():
    evaluation = evaluate([{"pred": [[0, 1]]}, {"pred": [[0, 1]], "options": ["x"], "response": "A"}])
    assert evaluation.unlabelled == 2
    assert evaluation.iou.overall.samples == evaluation.qa.overall.samples == 0


def test_one_record_without_ground_truth_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"b\.jsonl:2: a record without ground truth.*1 of 2"):
        evaluate([record([]), {"pred": [[0, 1]]}], origins=["b.jsonl:1", "b.jsonl:2"])


def test_grounding_metrics_takes_the_best_window():
    rows = [record([[20, 28]], span=[(0, 10), (20, 30)]), record([[0, 4]])]
    expected = {"R1@0.3": 100, "R1@0.5": 50, "R1@0.7": 50, "mIoU": 60}
    assert grounding_metrics(rows) == pytest.approx(expected)
