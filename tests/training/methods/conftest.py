"""SmolLM2-135M and two adapters of it, made once for all slow tests that a process runs."""

from __future__ import annotations

import pytest

from tests.training.methods.smollm2 import CACHE, DTYPES, Trained, train_adapter
from training.models.base_choice import open_base
from training.models.base_fetch import fetch
from training.models.base_model import BaseModel
from whet.errors import ConfigurationError
from whet.settings import load_settings


@pytest.fixture(scope="session")
def smollm2() -> BaseModel:
    try:
        fetch(CACHE, "smollm2", print)
    except ConfigurationError as error:  # no network
        pytest.skip(str(error))
    return open_base(load_settings(home=CACHE, base_model="smollm2"))


@pytest.fixture(scope="session")
def trained(smollm2: BaseModel) -> dict[str, Trained]:
    """An adapter by the dtype it was trained in."""
    return {dtype: train_adapter(smollm2, dtype) for dtype in DTYPES}
