"""The learning-rate range test: what it suggests of a curve, when it stops, and the command on a
tiny base.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.run.small import RECIPE, encoded, fresh
from tests.training.test_commands import Shell
from tests.training.tiny import facts, write_rows
from training.loop.loss import batch_loss
from training.models.base_model import BaseModel
from training.recipes.recipe import Recipe
from training.runs.lr_find import (
    STEPS,
    RangePoint,
    has_diverged,
    rates,
    require_testable,
    run_range_test,
    steps_within,
    suggest,
)
from whet.errors import InputError

PLAIN = replace(RECIPE, dropout=0.0, micro_batch=0)


def _curve(losses: list[float]) -> list[RangePoint]:
    return [RangePoint(10 ** (number / 10), loss, loss) for number, loss in enumerate(losses)]


def _valley(steepest: float, lowest: int) -> list[float]:
    """A loss that falls as a logistic curve, most steeply at a step, and rises after another."""
    fall = [4 - 3 / (1 + math.exp(steepest - step)) for step in range(lowest)]
    return [*fall, *(fall[-1] + 0.2 * step for step in range(1, 6))]


@pytest.mark.parametrize(("steepest", "lowest"), [(12, 25), (20, 30), (8, 15)])
def test_the_suggestion_is_where_the_loss_falls_most_steeply(steepest: int, lowest: int) -> None:
    points = _curve(_valley(steepest, lowest))
    rate, lowest_at = suggest(points)
    assert rate == points[steepest].rate
    assert lowest_at is not None and lowest_at == points[lowest - 1].rate > rate


@pytest.mark.parametrize(
    "losses",
    [[4.0] * 40, [4.0 + 0.05 * step for step in range(40)], [4.0, 3.0, 2.0], [4.0, 3.99] * 20],
)
def test_a_loss_that_falls_at_no_rate_gives_no_suggestion(losses: list[float]) -> None:
    assert suggest(_curve(losses)) == (None, None)


def test_the_test_stops_a_nat_above_the_lowest_loss_and_at_no_number() -> None:
    assert not has_diverged(_curve([4.0, 2.0, 2.9]))
    assert has_diverged(_curve([4.0, 2.0, 3.1])) and has_diverged(_curve([4.0, math.nan]))


def test_rates_rise_by_equal_factors_around_the_recipes_own() -> None:
    found = rates(replace(PLAIN, learning_rate=2e-3), STEPS)
    factors = [after / before for before, after in itertools.pairwise(found)]
    assert len(found) == STEPS and found[0] == pytest.approx(2e-6)
    assert found[-1] == pytest.approx(0.2) and max(factors) == pytest.approx(min(factors))
    assert rates(replace(PLAIN, learning_rate=0.5), STEPS)[-1] == pytest.approx(0.5)


def test_a_test_has_as_many_steps_as_fit_into_its_time() -> None:
    assert steps_within(300, 0.1) == STEPS and steps_within(300, 6.0) == 50
    with pytest.raises(InputError, match=r"A step takes 60\.0 s here, so 5 minutes") as caught:
        steps_within(300, 60.0)
    assert "--minutes 20" in caught.value.hint


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (Recipe(method="dpo"), "the method dpo needs more"),
        (Recipe(method="distill", teacher="x"), "the method distill needs more"),
        (Recipe(processes=2), "runs in one process"),
    ],
)
def test_what_the_loop_does_not_train_alone_is_refused(recipe: Recipe, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        require_testable(recipe)


@pytest.mark.usefixtures("one_thread")
def test_a_tiny_base_gets_a_rate_between_nothing_and_divergence(base: BaseModel) -> None:
    rows = encoded(base, 48)
    found = run_range_test(fresh(base, PLAIN), rows, PLAIN, pad_id=0, loss_of=batch_loss, steps=60)
    assert found.stopped in ("diverged", "end")
    assert found.suggestion is not None and found.lowest_at is not None
    assert PLAIN.learning_rate / 50 < found.suggestion < found.lowest_at < 0.5
    told: list[int] = []
    short = run_range_test(
        fresh(base, PLAIN),
        rows,
        PLAIN,
        pad_id=0,
        loss_of=batch_loss,
        steps=60,
        limit_s=3.0,
        clock=iter(range(100)).__next__,
        on_step=lambda step, point: told.append(step),
    )
    assert short.stopped == "time" and told == [1, 2, 3, 4]


def test_the_command_prints_the_run_with_the_rate_and_leaves_a_picture(
    tmp_path: Path, base_folder: Path
) -> None:
    shell = Shell(tmp_path / "home", base_folder)
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(60)))
    found = shell.json("train", "lr-find", rows, "--rank", "4", "--set", "dropout=0.05")
    assert found["suggestion"] > 0 and found["points"] and found["stopped"] in ("diverged", "end")
    assert found["next"] == (
        f"whet train run {rows} --alias support --set=dropout=0.05 --rank 4 "
        f"--learning-rate {found['suggestion']:.2g}"
    )
    picture = Path(found["picture"]).read_text(encoding="utf-8")
    assert picture.count("<svg") == 2 and "Suggested learning rate" in picture
    assert "http" not in picture and "<script" not in picture
    said = shell("train", "lr-find", rows, "--rank", "4")
    assert "suggestion" in said and "Next: whet train run" in said and "{" not in said
    assert shell.json("train", "list") == [], "nothing is stored but the picture"
    assert not list((tmp_path / "home").rglob("splits/*.json"))
    assert "the method dpo needs more" in shell.refused("train", "lr-find", rows, "--method", "dpo")
    assert json.loads(json.dumps(found)) == found
