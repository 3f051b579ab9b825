"""What the engine is started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.base import base_of
from serving.processes import engine_process
from whet.context import open_context
from whet.errors import ConfigurationError
from whet.settings import load_settings


def _arguments(home: Path, **settings: object) -> list[str]:
    context = open_context(load_settings(home=home, **settings))
    try:
        return engine_process(context, base_of(context)).argv
    finally:
        context.close()


def test_an_engine_has_room_for_adapters_up_to_a_rank_that_it_serves(tmp_path: Path) -> None:
    found = _arguments(tmp_path, engine_max_loras=3, engine_max_lora_rank=9)
    assert "--enable-lora" in found and found[found.index("--max-loras") + 1] == "3" and found[found.index("--max-lora-rank") + 1] == "16"
    with pytest.raises(ConfigurationError, match="ranks up to 512"):
        _arguments(tmp_path, engine_max_lora_rank=513)


def test_without_room_for_adapters_nothing_of_them_is_enabled(tmp_path: Path) -> None:
    assert [word for word in _arguments(tmp_path, engine_max_loras=0) if "lora" in word] == []
