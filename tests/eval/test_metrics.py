"""Scores of prediction records, against the original's and by hand."""

import numpy as np
import pytest
import torch
from helpers.goldens import golden_manifest

from videomind import spans
from videomind.eval.metrics import as_float32, check_ans, compute_iou, union_iou

INLINE = [c["id"] for c in golden_manifest("eval")["cases"] if c["inputs"] == "inline"]


def compare_check_ans(case: dict) -> None:
    """One row of the answer cases."""
    ours = check_ans(case["response"], num_options=case["num_options"], ans=case["ans"])
    # D501: where the original crashes (its exception's name is recorded), the answer is unparsable.
    crashed = isinstance(case["result"], str)
    assert ours is (None if crashed else case["result"]), case


def compare_compute_iou(case: dict) -> None:
    """One row of the overlap cases."""
    pred, truth = as_float32(case["pred"]), as_float32(case["span"])
    if case["cgbench"]:
        ours = [union_iou(pred, truth, conf=as_float32(case["conf"]), conf_thr=case["conf_thr"])]
    else:
        ours = compute_iou(pred, truth)
    np.testing.assert_allclose(ours, case["iou"], atol=1e-5, rtol=1e-5)


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


def torchs_union_iou(pred: torch.Tensor, truth: torch.Tensor) -> float:
    """The measure in torch's operations, as published figures were made."""
    start, end = torch.max(pred[:, None, 0], truth[:, 0]), torch.min(pred[:, None, 1], truth[:, 1])
    inter = (end - start).clamp(min=0).sum()
    union = (pred[:, 1] - pred[:, 0]).sum() + (truth[:, 1] - truth[:, 0]).sum() - inter
    return (inter / union).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).item()


@pytest.mark.parametrize("kept", [1, 2, 3, 7])
def test_overlaps_are_torchs_bit_for_bit(kept):
    """Float32 sums depend on the order of adding: few values are added by numpy, more by torch."""
    rng = np.random.default_rng(kept)
    for true in [*range(1, 9)] * 40:
        pred, truth = (np.sort(rng.uniform(0, 1000, (n, 2)).astype(np.float32)) for n in (kept, true))
        tensors = torch.from_numpy(pred), torch.from_numpy(truth)
        ours = union_iou(pred, truth, conf=np.ones(kept, np.float32), conf_thr=0.5)
        assert ours == torchs_union_iou(*tensors)
        assert np.array_equal(spans.iou(pred, truth), spans.iou(*tensors).numpy())


@pytest.mark.parametrize("values", [["1"], [[1, None]], [[1, 2], [3]], [[1, "2"]]])
def test_only_numbers_are_read(values):
    with pytest.raises(ValueError, match="numbers|inhomogeneous"):
        as_float32(values)
