"""Video tests run on one thread."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """As in a loader worker; a thread pool on busy cores is far slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
