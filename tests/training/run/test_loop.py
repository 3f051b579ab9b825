"""What the loop offers: packing without contamination, gradient accumulation and checkpointing that
change no result, early stopping.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.run.small import RECIPE, encoded, fresh, weights
from tests.training.tiny import build_base
from training.loop.batches import Batch, collate, endless, in_parts, pack
from training.loop.loss import batch_loss
from training.loop.trainer import train
from training.models.base_model import BaseModel
from training.models.encoded import Encoded

PLAIN = replace(RECIPE, dropout=0.0, micro_batch=0, epochs=2.0)


def _disturbed(model: Any) -> Any:
    """The model with an adapter that does something, in training mode."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    return model.train()


def _logprobs(model: Any, batch: Batch) -> list[list[float]]:
    """Log-probability of each learned token, by sequence and column."""
    import torch

    logits = model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        logits_to_keep=batch.columns,
        use_cache=False,
    ).logits
    each = torch.log_softmax(logits.float(), -1).gather(-1, batch.targets.clamp(min=0)[..., None])[
        ..., 0
    ]
    return [
        sorted(values[targets >= 0].tolist())
        for values, targets in zip(each.detach(), batch.targets, strict=True)
    ]


def _apart(model: Any, rows: list[Encoded], batch: Batch) -> float:
    """Largest difference between the rows packed and each alone."""
    packed = sorted(value for values in _logprobs(model, batch) for value in values)
    alone = sorted(
        value
        for row in rows
        for values in _logprobs(model, collate([row], 0, "cpu"))
        for value in values
    )
    assert len(packed) == len(alone)
    return max(abs(one - other) for one, other in zip(packed, alone, strict=True))


_SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("Llama", {}),
    ("Qwen2", {}),
    ("Mistral", {"sliding_window": 16}),
    ("Gemma2", {"attn_logit_softcapping": 5.0, "sliding_window": 16}),
]
# Float32 on rows of 40 tokens: the order of sums is all that differs (measured: at most 2e-6).
# Seeing the row before moves log-probabilities by 0.1 and more.
_TOLERANCE = 2e-5


@pytest.mark.parametrize(
    ("architecture", "extra", "fused"),
    [*((*shape, True) for shape in _SHAPES), ("Llama", {}, False)],
)
@pytest.mark.seconds
def test_a_packed_row_has_the_log_probabilities_it_has_alone(
    tmp_path: Path, architecture: str, extra: dict[str, Any], fused: bool
) -> None:
    base = BaseModel(
        build_base(tmp_path / "base", architecture=architecture, **extra), architecture
    )
    rows, model = encoded(base, 12), _disturbed(fresh(base, fused=fused, recipe=PLAIN))
    batch = pack(rows, 0, "cpu")
    assert len(batch.ids) < len(rows) and batch.positions is not None
    assert _apart(model, rows, batch) < _TOLERANCE


def test_under_a_plain_causal_mask_packed_rows_would_see_each_other(base: BaseModel) -> None:
    """The fault behind the rule: positions that go on through the sequence, so that no mask parts
    the rows.
    """
    import torch

    rows, model = encoded(base, 12), _disturbed(fresh(base, recipe=PLAIN))
    batch = pack(rows, 0, "cpu")
    contaminated = replace(
        batch, positions=torch.arange(batch.ids.shape[1]).expand(batch.ids.shape)
    )
    assert _apart(model, rows, contaminated) > 100 * _TOLERANCE


def test_packing_keeps_loss_and_gradients(base: BaseModel) -> None:
    import torch

    rows, model = encoded(base, 16), _disturbed(fresh(base, recipe=PLAIN))
    rows = [replace(row, weight=1.0 + number % 3) for number, row in enumerate(rows)]
    found = []
    for batch in (collate(rows, 0, "cpu"), pack(rows, 0, "cpu")):
        model.zero_grad()
        loss = batch_loss(model, batch)
        loss.backward()
        found.append(
            (
                float(loss.detach()),
                torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]),
                batch.tokens,
                batch.trained,
            )
        )
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5) and found[0][2:] == found[1][2:]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-6)


def test_every_row_is_packed_once_within_the_room_and_a_long_one_alone(base: BaseModel) -> None:
    rows = encoded(base, 30)
    batch = pack(rows, 0, "cpu", room=104)
    assert batch.tokens == sum(len(row.ids) for row in rows) and batch.ids.shape[1] <= 104
    assert batch.trained == sum(row.trained_tokens for row in rows)
    assert len(pack(rows[:2], 0, "cpu", room=8).ids) == 2


@pytest.mark.parametrize("put_together", [collate, pack])
def test_batches_have_few_shapes_and_what_rounds_them_changes_no_loss(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, put_together: Any
) -> None:
    model, rows = fresh(base, PLAIN), encoded(base, 30)
    parts = in_parts(rows, 3)
    rounded = [put_together(part, 0, "cpu") for part in parts]
    assert all(
        size % 8 == 0 for batch in rounded for size in (batch.ids.shape[1], batch.columns.shape[0])
    )
    monkeypatch.setattr("training.loop.batches._MULTIPLE", 1)
    exact = [put_together(part, 0, "cpu") for part in parts]
    assert any(batch.ids.shape[1] % 8 for batch in exact), (
        "nothing was rounded, so this shows nothing"
    )
    assert [batch.trained for batch in rounded] == [batch.trained for batch in exact]
    assert [float(batch_loss(model, batch)) for batch in rounded] == pytest.approx(
        [float(batch_loss(model, batch)) for batch in exact], rel=1e-5
    )


@pytest.mark.parametrize(
    "changed",
    [{"micro_batch": 2}, {"micro_batch": 3}, {"gradient_checkpointing": True}, {"packing": True}],
)
def test_accumulation_checkpointing_and_packing_change_no_result(
    base: BaseModel, changed: dict[str, Any]
) -> None:
    """Only the order of sums differs; without the weighting by learned tokens a micro-batch of
    short rows would count too much.
    """
    import torch

    rows = encoded(base, 24)
    results = []
    for recipe in (PLAIN, replace(PLAIN, **changed)):
        model = fresh(base, recipe)
        done = train(model, rows, [], recipe, pad_id=0, on_step=lambda step: None)
        results.append((weights(model), done))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=2e-4)
    assert results[0][1].last_loss == pytest.approx(results[1][1].last_loss, rel=1e-3)
    assert results[0][1].trained_tokens == results[1][1].trained_tokens


def test_gradient_checkpointing_keeps_fewer_activations(base: BaseModel) -> None:
    from training.plan.estimates import memory_by_part

    rows, model = encoded(base, 16), fresh(base, recipe=PLAIN)
    plain = memory_by_part(model, rows, PLAIN, 0, batch_loss, validated=False)["activations"]
    checkpointed = memory_by_part(
        model, rows, replace(PLAIN, gradient_checkpointing=True), 0, batch_loss, validated=False
    )["activations"]
    assert checkpointed < 0.8 * plain


def test_the_data_position_follows_from_the_step(base: BaseModel) -> None:
    rows = encoded(base, 21)
    whole = endless([rows], 4, seed=3)
    expected = [next(whole) for _ in range(20)]
    for first in (0, 1, 5, 6, 13):
        rest = endless([rows], 4, seed=3, first=first)
        assert [next(rest) for _ in range(20 - first)] == expected[first:]
