"""A small synthetic data root, made once."""

from pathlib import Path

import pytest

from videomind.synthetic import make_data

COUNTS = {"num_train": 3, "num_valid": 1, "num_test": 1}


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory) -> Path:
    """Both data sets with a few videos, at all three frame rates in training."""
    root = tmp_path_factory.mktemp("synthetic") / "data"
    make_data(root, **COUNTS, seed=3, workers=1)
    return root
