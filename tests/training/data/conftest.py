"""What the checks of data run in: a home and a small base, as the environment names them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from whet.context import Context, open_context
from whet.settings import load_settings


@pytest.fixture
def context(
    tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Context]:
    monkeypatch.setenv("WHET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WHET_BASE_MODEL", str(base_folder))
    opened = open_context(load_settings())
    yield opened
    opened.close()
