"""Sums of floats as published figures were made: from left to right, each addition rounded.

Python's `sum` does so up to 3.11; from 3.12 on it carries along what rounding loses, and the last digits
differ.
"""

from collections.abc import Collection, Iterable
from functools import reduce
from operator import add


def plain_sum(values: Iterable[float]) -> float:
    """Add values one after the other."""
    return reduce(add, values, 0)


def plain_mean(values: Collection[float]) -> float:
    """Divide the sum of values by their number."""
    return plain_sum(values) / len(values)
