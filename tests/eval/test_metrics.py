"""Scores of prediction records, against the original's and by hand."""

import pytest
import torch
from helpers.goldens import golden_manifest

from videomind.eval.metrics import check_ans, compute_iou, union_iou

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
