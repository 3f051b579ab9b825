"""The losses of DPO and KTO that TRL has, and SimPO: each trains, is what was asked for, and says
so in the recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.methods.test_library_resume import _attempt, _prepared, home
from tests.training.test_trainer import prepared_run
from tests.training.tiny import facts
from training.loop.pairs import check_batches, passes_beside
from training.recipes.methods import METHODS, SMOOTHED_LOSSES
from training.recipes.recipe import Recipe, load_recipe, recipe_from
from training.recipes.recipe_checks import relevant_fields
from training.recipes.recipe_choices import resolved
from whet.context import Context
from whet.errors import InputError

__all__ = ["home"]

pytestmark = pytest.mark.usefixtures("one_thread")


def _fields(loss: str) -> dict[str, Any]:
    smoothing = {"label_smoothing": 0.1} if loss in SMOOTHED_LOSSES else {}
    return {"loss_type": loss, "epochs": 1.0, "micro_batch": 0, "beta": 0.5, **smoothing}


# In one batch whose margins sort alike both are the same loss.
_ALIKE = [("aot", "aot_unpaired")]


@pytest.mark.seconds
@pytest.mark.parametrize(
    "losses",
    [
        ("sigmoid", "ipo", "robust", "apo_zero"),
        pytest.param(METHODS["dpo"].losses, marks=pytest.mark.slow),
    ],
)
def test_every_loss_of_dpo_trains_to_weights_of_its_own(
    home: Context, tmp_path: Path, losses: tuple[str, ...]
) -> None:
    import torch

    found: dict[str, Any] = {}
    for loss in losses:
        prepared = _prepared(home, "dpo", **_fields(loss))
        assert prepared.recipe.loss_type == loss
        attempt = _attempt(prepared, tmp_path / loss, every_s=1e9)
        assert torch.isfinite(attempt.weights).all() and attempt.trained.steps == 3
        found[loss] = attempt.weights
    same = [
        (one, other)
        for one in found
        for other in found
        if one < other and torch.equal(found[one], found[other])
    ]
    assert [pair for pair in same if pair not in _ALIKE] == [], "two names, one loss"


@pytest.mark.seconds
def test_kto_without_a_reference_point_takes_single_rows_and_one_pass(
    home: Context, tmp_path: Path
) -> None:
    import torch

    unpaired = Recipe(method="kto", loss_type="apo_zero_unpaired", batch_size=1)
    check_batches(unpaired)
    assert passes_beside(unpaired) == 1 and passes_beside(Recipe(method="kto")) == 3
    first, other = (
        _attempt(_prepared(home, "kto", **_fields(loss)), tmp_path / loss, every_s=1e9).weights
        for loss in METHODS["kto"].losses
    )
    assert not torch.equal(first, other)


@pytest.mark.seconds
def test_simpo_trains_and_its_margin_changes_what_is_learned(home: Context, tmp_path: Path) -> None:
    import torch

    found = []
    for gamma in (0.0, 1.0):
        fields: dict[str, Any] = {"epochs": 4.0, "simpo_gamma": gamma, "micro_batch": 4}
        attempt = _attempt(_prepared(home, "simpo", **fields), tmp_path / str(gamma), every_s=1e9)
        assert attempt.trained.last_loss < attempt.trained.first_loss
        found.append(attempt)
    assert not torch.equal(found[0].weights, found[1].weights)
    assert found[0].trained.first_loss < found[1].trained.first_loss, "a margin is to be reached"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"method": "dpo", "loss_type": "apo"}, "expected one of sigmoid, hinge, ipo, robust"),
        ({"method": "kto", "loss_type": "ipo"}, "expected one of kto, apo_zero_unpaired"),
        ({"method": "orpo", "loss_type": "ipo"}, "The method orpo has no loss_type"),
        ({"method": "lora", "loss_type": "sigmoid"}, "The method lora has no loss_type"),
        ({"method": "dpo", "label_smoothing": 0.1}, "only the losses robust, exo_pair, aot"),
        (
            {"method": "dpo", "loss_type": "robust", "label_smoothing": 0.5},
            "0 or more and below 0.5",
        ),
        ({"method": "dpo", "loss_type": "exo_pair"}, "such as 0.001"),
        ({"method": "kto", "label_smoothing": 0.1}, "The method kto has no label_smoothing"),
        ({"method": "dpo", "simpo_gamma": 1.0}, "The method dpo has no simpo_gamma"),
    ],
)
def test_a_loss_that_a_method_does_not_have_is_refused_with_those_it_has(
    fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        recipe_from(fields)


def test_the_loss_that_was_chosen_is_in_the_recipe_of_the_run() -> None:
    chosen = {
        method: resolved(load_recipe(method), parameters=5_000_000, max_length=512)
        for method in ("dpo", "kto", "simpo", "lora")
    }
    assert [recipe.loss_type for recipe in chosen.values()] == ["sigmoid", "kto", "", ""]
    assert relevant_fields(chosen["dpo"].as_json())["loss_type"] == "sigmoid"
    assert "loss_type" not in relevant_fields(chosen["lora"].as_json())


def test_simpo_takes_preferences_alone(home: Context) -> None:
    with pytest.raises(InputError, match="have no chosen and rejected answer"):
        prepared_run(home, facts(20), load_recipe("simpo"))
