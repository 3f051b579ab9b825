"""What training computed against what an engine would measure with a planted mistake: refused, with
the mistake named.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.parity import EngineLogprobs, check_parity
from tests.training.tiny import CHATML, build_base, facts
from training.data.rows import read_lines
from training.loop.trainer import train
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.models.fingerprint import fingerprint, logprobs
from training.models.lora import adapter_weights, plain_config, trainable, with_stored
from training.recipes.recipe import Recipe
from whet.store import base_model_parts

RANK, ALPHA = 8, 16.0


def _trained(base: BaseModel, rows: list[dict[str, Any]]) -> Any:
    """An adapter that learned something: one of random weights is saturated, and answers alike at
    any scale.
    """
    recipe = Recipe(
        rank=RANK,
        alpha=ALPHA,
        epochs=6.0,
        batch_size=8,
        learning_rate=5e-3,
        dtype="float32",
        threads=1,
    )
    encoder = Encoder(base, 512)
    encoded = [
        one
        for row in read_lines(json.dumps(row).encode() for row in rows).rows
        if isinstance(one := encoder.encode(row), Encoded)
    ]
    model = trainable(base, recipe)
    train(model, encoded, [], recipe, pad_id=0, on_step=lambda step: None)
    return model


@pytest.fixture(scope="module")
def weights(bases: dict[str, BaseModel]) -> dict[str, Any]:
    return adapter_weights(_trained(bases["chatml"], facts(48)), "float32")


@pytest.fixture(scope="module")
def others(bases: dict[str, BaseModel]) -> dict[str, Any]:
    return adapter_weights(_trained(bases["chatml"], facts(48, shift=3)), "float32")


def _model(
    base: BaseModel, weights: dict[str, Any], alpha: float = ALPHA, *, rslora: bool = False
) -> Any:
    targets = sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in weights})
    return with_stored(
        base.load_model("float32"), plain_config(RANK, alpha, targets, rslora=rslora), weights
    )


def _conversations(base: BaseModel) -> list[list[int]]:
    texts = (
        "How long is the warranty of the kettle?",
        "Send it to the service desk, please.",
        "the quick brown fox",
    )
    return [
        list(
            base.tokenizer(
                f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\nIt is 24 months.",
                add_special_tokens=False,
            )["input_ids"]
        )
        for text in texts
    ]


def _measured(base: BaseModel, model: Any) -> EngineLogprobs:
    """What an engine with this model would answer."""
    conversations = _conversations(base)
    adapter = [value for ids in conversations for value in logprobs(model, ids)[1:]]
    with model.disable_adapter():
        return EngineLogprobs(
            adapter, [value for ids in conversations for value in logprobs(model, ids)[1:]]
        )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def card(bases: dict[str, BaseModel], weights: dict[str, Any]) -> dict[str, Any]:
    base = bases["chatml"]
    return fingerprint(_model(base, weights), _conversations(base), base.folder)


def test_what_was_trained_is_served(
    bases: dict[str, BaseModel], weights: dict[str, Any], card: dict[str, Any]
) -> None:
    verdict = check_parity(
        "x@v1", card, _measured(bases["chatml"], _model(bases["chatml"], weights)), limit=512
    )
    assert verdict.reason == "" and verdict.parity["mean"] < 0.001


@pytest.mark.parametrize(
    ("served", "cause"),
    [
        ({"alpha": ALPHA / 2}, "at 0.50 times the scale"),
        ({"alpha": ALPHA * 2}, "at 2.00 times the scale"),
        ({"rslora": True}, "at 2.83 times the scale"),
        ({"alpha": 1e-6}, "It is not applied"),
    ],
)
def test_a_planted_mistake_in_the_adapters_configuration_is_named(
    bases: dict[str, BaseModel],
    weights: dict[str, Any],
    card: dict[str, Any],
    served: dict[str, Any],
    cause: str,
) -> None:
    verdict = check_parity(
        "x@v1",
        card,
        _measured(bases["chatml"], _model(bases["chatml"], weights, **served)),
        limit=512,
    )
    assert cause in verdict.reason, f"{served}: {verdict}"


def test_another_versions_weights_are_named_as_such(
    bases: dict[str, BaseModel], others: dict[str, Any], card: dict[str, Any]
) -> None:
    verdict = check_parity(
        "x@v1", card, _measured(bases["chatml"], _model(bases["chatml"], others)), limit=512
    )
    assert (
        "answers unlike it did in training" in verdict.reason
        and "The base agrees" in verdict.reason
    ), verdict


def test_another_revision_of_the_base_is_named_as_the_base(
    weights: dict[str, Any], card: dict[str, Any], tmp_path: Path
) -> None:
    other = BaseModel(build_base(tmp_path / "revision", template=CHATML, seed=1), "revision")
    verdict = check_parity("x@v1", card, _measured(other, _model(other, weights)), limit=512)
    assert "The engine's base answers unlike the base x@v1 was trained on" in verdict.reason


def test_the_fingerprint_names_the_parts_of_its_base(
    bases: dict[str, BaseModel], card: dict[str, Any]
) -> None:
    assert set(card["base_parts"]) == {"configuration", "tokenizer", "chat template"}
    assert (
        base_model_parts(bases["turns"].folder)["chat template"]
        != card["base_parts"]["chat template"]
    )
