"""Signs of trouble: each is found, has its sentence, and is not seen where there is none."""

from __future__ import annotations

import math
import random

import pytest

from training.loop.diagnostics import (
    check_divergence,
    explain_early_stop,
    explain_memorisation,
    explain_plateau,
    warn_endless_answers,
)
from training.recipes.recipe import Recipe
from whet.errors import TrainingError

RECIPE = Recipe(learning_rate=5e-3, dtype="float32")


def _noisy(start: float, end: float, steps: int, noise: float = 0.3) -> list[float]:
    chance = random.Random(steps)
    return [start + (end - start) * step / steps + chance.gauss(0, noise) for step in range(steps)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_or_gradient_that_is_no_number_is_named_at_its_step(value: float) -> None:
    with pytest.raises(TrainingError, match="loss stopped being a number at step 3"):
        check_divergence([1.0, 1.0, value], 1.0, 3, RECIPE)
    with pytest.raises(TrainingError, match="gradient stopped being a number"):
        check_divergence([1.0], value, 1, RECIPE)


def test_a_gradient_of_exactly_nothing_is_named_at_the_first_step_and_only_there() -> None:
    with pytest.raises(TrainingError, match="No gradient arrives"):
        check_divergence([6.0], 0.0, 1, RECIPE)
    check_divergence([6.0, 0.0], 0.0, 2, RECIPE)  # rows that are known by heart


def test_a_wild_rate_is_noticed_within_fifteen_steps_and_a_slow_divergence_within_sixty() -> None:
    with pytest.raises(TrainingError, match="rose from"):
        check_divergence([6.0] * 6 + [12.0] * 9, 1.0, 15, RECIPE)
    check_divergence([6.0] * 20 + [7.5] * 39, 1.0, 59, RECIPE)
    with pytest.raises(TrainingError, match=r"rose from 6\.00 to 7\.50 by step 60"):
        check_divergence([6.0] * 20 + [7.5] * 40, 1.0, 60, RECIPE)


def test_a_rate_that_ruins_the_model_at_once_is_seen_against_the_loss_before_the_first_step() -> (
    None
):
    ruined = [2.0, 9.0, 9.0, 8.5, 8.0, 8.0, 8.0, 7.9, 7.8, 7.8, 7.7]
    check_divergence(ruined, 1.0, 11, RECIPE)
    with pytest.raises(TrainingError, match=r"rose from 2\.10 to 7\.84 by step 11"):
        check_divergence(ruined, 1.0, 11, RECIPE, before=2.1)


def test_ordinary_noise_is_no_divergence() -> None:
    for seed in range(20):
        chance, losses = random.Random(seed), []
        for step in range(200):
            losses.append(max(0.0, 3.0 * 0.98**step + chance.gauss(0, 0.5)))
            check_divergence(losses, 1.0, step + 1, RECIPE)
            check_divergence(losses, 1.0, step + 1, RECIPE, before=3.0)


def test_overfitting_is_named_with_its_figures_and_only_after_the_patience() -> None:
    losses = [2.0 - 0.01 * step for step in range(100)]
    validation = [[10.0, 2.0], [20.0, 1.5], [30.0, 1.6], [40.0, 1.7]]
    assert explain_early_stop(validation, losses, 3) == ""
    said = explain_early_stop([*validation, [50.0, 1.9]], losses, 3)
    assert (
        said.startswith("Overfitting: since step 20")
        and "1.500 to 1.900" in said
        and "the weights of step 20 were kept" in said
    )
    assert explain_early_stop([*validation, [50.0, 1.9]], losses, 0) == "", "patience 0 never stops"
    assert explain_early_stop([*validation, [50.0, 1.4]], losses, 3) == "", "a new best"


def test_validation_that_stands_still_is_not_called_overfitting() -> None:
    said = explain_early_stop([[10.0, 1.5], [20.0, 1.5], [30.0, 1.5]], [2.0] * 30, 2)
    assert "has not improved since step 10" in said and "Overfitting" not in said


def test_nothing_learned_is_seen_at_half_of_the_run() -> None:
    flat = _noisy(5.0, 5.0, 100)
    assert explain_plateau(flat[:49], 100) == ""
    assert explain_plateau(flat[:50], 100).startswith(
        "Nothing was learned by step 50: the loss began at"
    )
    assert explain_plateau(_noisy(5.0, 4.0, 100)[:50], 100) == ""
    assert explain_plateau([5.0] * 30, 40) == "", "too few steps to say so"


def test_a_loss_that_only_comes_back_to_where_it_was_is_worse_than_before() -> None:
    wild = [*_noisy(9.0, 4.0, 25), *_noisy(3.0, 2.5, 25)]
    assert explain_plateau(wild, 100) == "", "it fell, as far as the losses alone can say"
    assert explain_plateau(wild, 100, before=2.1).startswith(
        "Worse than before: the loss was 2.100 before the first step, rose to"
    )
    assert explain_plateau(wild, 100, before=6.0) == ""
    assert explain_plateau([*_noisy(2.4, 1.0, 25), *_noisy(1.0, 0.6, 25)], 100, before=2.1) == "", (
        "a warm-up that shook it a little"
    )


def test_the_loss_before_the_first_step_is_of_rows_from_all_of_the_list() -> None:
    from training.loop.trainer import _spread

    assert _spread(list(range(10)), 20) == list(range(10))  # type: ignore[arg-type,comparison-overlap]
    assert _spread(list(range(100)), 4) == [0, 25, 50, 75]  # type: ignore[arg-type,comparison-overlap]


def test_answers_that_do_not_end_are_named_and_few_answers_say_nothing() -> None:
    assert "only 20 %" in warn_endless_answers({"old": {"n": 50, "candidate_stopped": 0.2}})
    assert (
        warn_endless_answers({"old": {"n": 50, "candidate_stopped": 0.9}})
        == warn_endless_answers({"old": {"n": 3, "candidate_stopped": 0.0}})
        == warn_endless_answers({})
        == ""
    )


def test_a_run_that_knows_its_rows_by_heart_stops_and_says_so() -> None:
    losses = [1.0] * 60 + [0.0005] * 50
    assert "learned by heart" in explain_memorisation(losses, 50, 300)
    assert "step 110 of 300" in explain_memorisation(losses, 50, 300)
    assert explain_memorisation(losses, 60, 300) == "", "ten steps of the last pass had a loss"
    assert explain_memorisation([0.0001] * 20, 10, 300) == "", "before 40 steps nothing is certain"
    assert explain_memorisation(losses, 50, 110) == "", "it is over anyway"
