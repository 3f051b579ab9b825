"""What the tests of runs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a fork has no other threads, and would wait for them
    yield
    torch.set_num_threads(before)
