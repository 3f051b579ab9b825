"""What the engine is started with."""

from __future__ import annotations

import json
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
    assert (
        "--enable-lora" in found
        and found[found.index("--max-loras") + 1] == "3"
        and found[found.index("--max-lora-rank") + 1] == "16"
    )
    with pytest.raises(ConfigurationError, match="ranks up to 512"):
        _arguments(tmp_path, engine_max_lora_rank=513)


def test_without_room_for_adapters_nothing_of_them_is_enabled(tmp_path: Path) -> None:
    assert [word for word in _arguments(tmp_path, engine_max_loras=0) if "lora" in word] == []


@pytest.mark.parametrize(
    ("positions", "setting", "served"),
    [
        ({"max_position_embeddings": 512}, 1024, 512),
        ({"max_position_embeddings": 4096}, 1024, 1024),
        ({}, 1024, 1024),
    ],
)
def test_an_engine_serves_no_more_positions_than_its_base_has(
    tmp_path: Path, positions: dict[str, int], setting: int, served: int
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"model_type": "llama", **positions}))
    (base / "model.safetensors").write_bytes(b"weights")
    context = open_context(
        load_settings(home=tmp_path / "home", base_model=str(base), engine_max_model_len=setting)
    )
    try:
        spec = engine_process(context, base_of(context))
    finally:
        context.close()
    assert spec.argv[spec.argv.index("--max-model-len") + 1] == str(served)
    assert spec.notice == (
        ""
        if served == setting
        else (
            f"serves {served} tokens of prompt and answer together: the base model has no more"
            f" positions (engine_max_model_len is {setting})"
        )
    )
