"""A merged model answers like the adapter it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.test_trainer import go, read_rows
from tests.training.tiny import facts
from training.adapters.export import export_merged
from training.loop.generation import greedy
from training.machine.device import stored_dtype
from training.models.base_choice import open_base
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.lora import with_stored
from training.store.adapter_publish import read_weights
from whet.context import Context

PROMPTS, TOKENS = 50, 24


def trained_and_merged(context: Context, to: Path) -> tuple[Any, list[list[int]]]:
    """A version of the built-in base, merged into `to`, and the prompts of 50 rows as token ids."""
    rows = facts(120)
    outcome = go(context, rows, rank=16, alpha=32.0, epochs=2.0, learning_rate=3e-3)
    base = open_base(context.settings)
    export_merged(context, outcome.adapter, base, to)  # type: ignore[arg-type]
    encoder = Encoder(base, 256)
    return outcome.adapter, [encoder.prompt_ids(row) for row in read_rows(rows)[:PROMPTS]]


@pytest.mark.slow  # three times fifty answers of the built-in base, 45 s of processor time
def test_a_merged_model_and_its_adapter_agree_token_for_token_on_fifty_prompts(
    sqlite_context: Context, tmp_path: Path
) -> None:
    adapter, prompts = trained_and_merged(sqlite_context, tmp_path / "merged")
    base, dtype = open_base(sqlite_context.settings), stored_dtype()
    weights, config = read_weights(sqlite_context, adapter)
    beside = greedy(
        with_stored(base.load_model(dtype), config, weights), prompts, base.stop_ids, TOKENS
    )
    merged = greedy(
        BaseModel(tmp_path / "merged", "merged").load_model(dtype), prompts, base.stop_ids, TOKENS
    )
    alone = greedy(base.load_model(dtype), prompts, base.stop_ids, TOKENS)
    assert len(prompts) == PROMPTS and beside != alone, (
        "an adapter without effect would agree with anything"
    )
    assert [number for number in range(PROMPTS) if beside[number] != merged[number]] == []
