"""Spans against the original's numbers, and the rules of fitting and rounding."""

import math
import re

import numpy as np
import pytest
import torch

from videomind import spans


@pytest.mark.golden
def test_overlaps(golden):
    arrays = golden.npz("units/temporal_ops.npz")
    measures = {
        "iou": spans.iou,
        "iof": spans.iop,
        "inter": spans.intersection,
        "area_a": lambda a, _: spans.length(a),
    }
    compared = 0
    for name, expected in arrays.items():
        number, what = re.fullmatch(r"(\d+)_(\w+)", name).groups()
        if what in measures:
            a, b = (torch.from_numpy(arrays[f"{number}_{side}"]) for side in "ab")
            np.testing.assert_allclose(measures[what](a, b), expected, atol=1e-6, equal_nan=True)
            compared += 1
    assert compared


@pytest.mark.golden
def test_fit(golden):
    cases = golden.json("units/parse_span.json")
    assert cases
    for case in cases:
        out = spans.fit(case["span"], case["duration"], case["min_len"])
        assert out == pytest.approx(case["out"], abs=1e-9), case


def test_widen_stays_inside():
    assert spans.widen([2.0, 6.0], 7.0) == [0.0, 7.0]


def test_to_seconds_clamps_rounds_and_orders_each_row():
    """D507: the original swapped the ends of the whole block when one row was reversed."""
    boundaries = torch.tensor([[0.5, 0.1], [-0.2, 0.33], [0.9, 1.4]])
    out = spans.to_seconds(boundaries, duration_s=10.0, unit_s=0.5)
    assert out.tolist() == [[1.0, 5.0], [0.0, 3.5], [9.0, 10.0]]


def test_zero_over_zero_is_nan():
    a = torch.tensor([[1.0, 1.0]])
    assert math.isnan(spans.iou(a, a).item()) and math.isnan(spans.iop(a, a).item())
