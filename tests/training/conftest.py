"""Tiny bases, built once per test session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.tiny import BRACKETS, CHATML, TURNS, build_base
from training.models.base_model import BaseModel

TEMPLATES = {"chatml": CHATML, "brackets": BRACKETS, "turns": TURNS}


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModel]:
    """One tiny Llama per chat template."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        name: BaseModel(build_base(folder / name, template=template), name)
        for name, template in TEMPLATES.items()
    }


@pytest.fixture(scope="session")
def base(bases: dict[str, BaseModel]) -> BaseModel:
    return bases["chatml"]


@pytest.fixture(scope="session")
def base_folder(base: BaseModel) -> Path:
    return base.folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a fork has no other threads, and would wait for them
    yield
    torch.set_num_threads(before)
