"""Order of training samples."""

import pytest

from videomind.train.mixture import Draw
from videomind.train.sampler import GroupSampler, group_order


@pytest.mark.golden
def test_order(golden):
    cases = golden.json("units/group_sampler.json")
    assert cases
    for case in cases:
        order = group_order(case["data_types"], case["group_size"], case["seed"], case["epoch"])
        assert order.tolist() == case["order"]


def test_length_is_what_is_yielded():
    """D405: the original counted dropped samples too."""
    sampler = GroupSampler(["a"] * 7 + ["b"] * 5, group_size=4, seed=1)
    assert len(sampler) == len(list(sampler)) == 8


def test_epochs_differ_and_carry_their_number():
    sampler = GroupSampler(["a"] * 8, group_size=2, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first[0] == Draw(first[0].index, 0) and second[0].epoch == 1
    assert [d.index for d in first] != [d.index for d in second]


def test_too_few_samples_for_a_group_is_an_error():
    with pytest.raises(ValueError, match="No data type has 4 samples.*'a': 3"):
        GroupSampler(["a"] * 3, group_size=4, seed=0)
