"""The official QVHighlights metrics, against the original's and by hand."""

import pytest
from helpers.goldens import golden_manifest

from videomind.eval.qvhighlights import evaluate_qvhighlights
from videomind.eval.records import read_records
from videomind.eval.report import render_qvhighlights

CASES = golden_manifest("eval")["cases"]
SUBMISSIONS = [c["id"] for c in CASES if isinstance(c["inputs"], dict) and "submission" in c["inputs"]]


def outputs(case: dict) -> list[str]:
    """A case's expected files."""
    return [case["outputs"]] if isinstance(case["outputs"], str) else case["outputs"]


def flatten(scores: dict, prefix: tuple = ()) -> dict[tuple, float]:
    """A nested dictionary as path → number."""
    flat = {}
    for key, value in scores.items():
        flat |= flatten(value, (*prefix, key)) if isinstance(value, dict) else {(*prefix, key): value}
    return flat


def check_empty_score_0(submission: list[dict], annotations: list[dict]) -> None:
    """D502: the original crashes on empty windows; here such a query scores 0.

    So the full scores are those of the other queries, times their share.
    """
    empty = {p["qid"] for p in submission if not p.get("pred_relevant_windows")}
    empty |= {a["qid"] for a in annotations if not a.get("relevant_windows")}
    assert empty
    scores = evaluate_qvhighlights(submission, annotations)
    others = evaluate_qvhighlights(submission, [a for a in annotations if a["qid"] not in empty])
    share = (len(annotations) - len(empty)) / len(annotations)
    expected = {key: value * share for key, value in flatten(others.metrics["full"]).items()}
    assert flatten(scores.metrics["full"]) == pytest.approx(expected, abs=0.0101)


@pytest.mark.golden
@pytest.mark.parametrize("case_id", SUBMISSIONS)
def test_submissions_of_the_original(golden, case_id):
    case = golden.case("eval", case_id)
    root = golden.root / "eval"
    submission = read_records(root / case["inputs"]["submission"]).rows
    annotations = read_records(root / case["inputs"]["anno"]).rows
    if any(name.endswith(".error.txt") for name in outputs(case)):
        check_empty_score_0(submission, annotations)
        return
    scores = evaluate_qvhighlights(submission, annotations)
    compared = 0
    for name in outputs(case):
        if name.endswith(".json"):
            ours, theirs = flatten(scores.metrics), flatten(golden.json(f"eval/{name}"))
        else:
            expected = (root / name).read_text(encoding="utf-8")
            ours, theirs = (
                {key: float(value) for key, value in (line.split(": ") for line in text.splitlines())}
                for text in (render_qvhighlights(scores), expected)
            )
            assert list(ours) == list(theirs)
        assert theirs and ours == pytest.approx(theirs, abs=0.0101)
        compared += 1
    assert compared


def truth(*windows, qid=1, **fields) -> dict:
    """An annotation with these true windows."""
    return {"qid": qid, "duration": 150, "relevant_windows": [list(w) for w in windows], **fields}


def guess(*windows, qid=1, **fields) -> dict:
    """A submission's row; windows (start, end, score)."""
    return {"qid": qid, "pred_relevant_windows": [list(w) for w in windows], **fields}


def full(predictions, annotations) -> dict:
    """The scores over all lengths."""
    return evaluate_qvhighlights(predictions, annotations).metrics["full"]


def test_top1_is_the_first_listed_and_precision_sorts_by_score():
    """K507."""
    scores = full([guess((50, 60, 0.1), (0, 10, 0.9))], [truth((0, 10))])
    assert scores["MR-R1"]["0.5"] == 0 and scores["MR-R5"]["0.5"] == 100
    assert scores["MR-mIoU"] == 0
    assert scores["MR-mAP"]["average"] == 100


def test_precision_looks_at_the_first_ten_listed():
    """K507."""
    wrong = [(50, 60, 0.1)] * 10
    assert full([guess(*wrong, (0, 10, 0.9))], [truth((0, 10))])["MR-mAP"]["0.5"] == 0
    assert full([guess(*wrong[:9], (0, 10, 0.9))], [truth((0, 10))])["MR-mAP"]["0.5"] == 100


def test_a_true_window_is_found_once_and_precision_is_interpolated():
    # Hits at ranks 1, 3 and 4 (rank 2 repeats the first): precision 1, then 3/4 for both others.
    predictions = guess((0, 10, 0.9), (0, 9, 0.8), (20, 30, 0.7), (40, 50, 0.6))
    scores = full([predictions], [truth((0, 10), (20, 30), (40, 50))])
    assert scores["MR-mAP"]["0.5"] == pytest.approx(100 * (1 + 0.75 + 0.75) / 3, abs=0.01)


def test_a_prediction_takes_a_free_window_when_its_best_is_taken():
    predictions = guess((0, 10, 0.9), (0, 11, 0.8))
    scores = full([predictions], [truth((0, 10), (0, 14))])  # the second has IoU 0.79 with the other
    assert scores["MR-mAP"]["0.75"] == 100 and scores["MR-mAP"]["0.8"] == 50


def test_a_prediction_takes_one_window_only():
    scores = full([guess((0, 10, 0.9), (0, 10, 0.8))], [truth((0, 10), (0, 10))])
    assert scores["MR-mAP"]["0.95"] == 100
    assert full([guess((0, 10, 0.9))], [truth((0, 10), (0, 10))])["MR-mAP"]["0.95"] == 50


def test_ranges_keep_only_their_windows():
    rows = [truth((0, 10), (20, 60)), truth((0, 31), qid=2)]
    scores = evaluate_qvhighlights([guess((20, 60, 1.0)), guess((0, 31, 1.0), qid=2)], rows)
    assert scores.metrics["long"]["MR-mAP"]["0.5"] == 100
    assert scores.metrics["short"]["MR-mAP"]["0.5"] == 0
    assert scores.metrics["full"]["MR-mAP"]["0.5"] == 75
    assert scores.empty_ranges == ("middle",)
    assert scores.metrics["middle"] == scores.metrics["full"]


def test_missing_and_unknown_predictions_are_counted():
    """D503."""
    scores = evaluate_qvhighlights(
        [guess((0, 10, 1.0)), guess((0, 10, 1.0), qid=9)], [truth((0, 10)), truth((0, 10), qid=2)]
    )
    assert (scores.missing, scores.unknown) == (("2",), ("9",))
    assert scores.metrics["full"]["MR-R1"]["0.5"] == 50
    assert scores.metrics["full"]["MR-mAP"]["0.5"] == 50


def test_a_qid_predicted_twice_counts_once_or_is_refused():
    """D503."""
    one = guess((0, 10, 1.0))
    assert evaluate_qvhighlights([one, dict(one)], [truth((0, 10))]).repeated == ("1",)
    with pytest.raises(ValueError, match="qid 1 occurs twice in the submission"):
        evaluate_qvhighlights([one, guess((0, 9, 1.0))], [truth((0, 10))])


def test_an_annotation_without_windows_is_unlabelled_not_empty():
    rows = [truth((0, 10)), {"qid": 2}]
    scores = evaluate_qvhighlights([guess((0, 10, 1.0)), guess((0, 10, 1.0), qid=2)], rows)
    assert (scores.queries, scores.unlabelled) == (1, 1)
    assert scores.metrics["full"]["MR-R1"]["0.95"] == 100


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (guess((0, 10)), "qid 1: 'pred_relevant_windows' is .* rows of 3 numbers"),
        (guess(qid=5), "no qid in common"),
        ({"qid": 1}, "neither 'pred_relevant_windows' nor"),
        ({"vid": "v"}, "Row 1 of the submission has no 'qid'"),
        ({"qid": 1, "pred_saliency_scores": ["x"]}, "qid 1: 'pred_saliency_scores'"),
    ],
)
def test_malformed_submissions_are_named(prediction, message):
    rows = [truth((0, 10), relevant_clip_ids=[0], saliency_scores=[[4, 4, 4]])]
    with pytest.raises(ValueError, match=message):
        evaluate_qvhighlights([prediction], rows)


def highlights(scores, clips, saliency, duration=8) -> dict:
    """Highlight metrics of one query with `duration` / 2 clips."""
    row = {"qid": 1, "duration": duration, "relevant_clip_ids": clips, "saliency_scores": saliency}
    return evaluate_qvhighlights([{"qid": 1, "pred_saliency_scores": scores}], [row]).metrics


def test_highlights_count_levels_and_annotators():
    # Clip 1 is very good for one annotator, fair for another; clip 2 is fair for the third.
    metrics = highlights([0.1, 0.9, 0.5, 0.2], [1, 2], [[4, 2, 0], [0, 0, 2]])
    assert metrics["HL-min-Fair"] == {"HL-mAP": round(100 * (1 + 1 + 1 / 2) / 3, 2), "HL-Hit1": 100}
    assert metrics["HL-min-VeryGood"] == {"HL-mAP": 33.33, "HL-Hit1": 100}
    assert highlights([0.9, 0.1, 0.5, 0.2], [1], [[4, 4, 4]])["HL-min-Good"]["HL-Hit1"] == 0
    assert "full" not in metrics


def test_highlight_precision_is_interpolated():
    # Hits at ranks 2 and 3: precision 1/2, raised to the 2/3 that follows.
    metrics = highlights([0.9, 0.8, 0.7, 0.1], [1, 2], [[4, 4, 4], [4, 4, 4]])
    assert metrics["HL-min-Good"]["HL-mAP"] == 66.67


def test_tied_clips_share_a_rank():
    assert highlights([0.5, 0.5, 0.1, 0.1], [0], [[4, 4, 4]])["HL-min-Good"]["HL-mAP"] == 50


def test_predicted_saliency_is_cut_or_filled_with_zeros_to_the_video():
    assert highlights([0.5, 0.1, 0.1, 0.1, 0.9], [0], [[4, 4, 4]])["HL-min-Good"] == {
        "HL-mAP": 100,
        "HL-Hit1": 0,
    }
    assert highlights([-0.5], [0], [[4, 4, 4]])["HL-min-Good"] == {"HL-mAP": 25, "HL-Hit1": 100}


def test_saliency_beyond_the_video_is_named():
    with pytest.raises(ValueError, match="must agree and lie within the 4 clips of 8 s"):
        highlights([0.5], [4], [[4, 4, 4]])
