"""What a recipe leaves open, chosen by the rows and the base."""

from __future__ import annotations

import math
from dataclasses import replace

from training.recipes.methods import METHODS
from training.recipes.recipe import Recipe

# Small models need large steps: measured on the built-in base, where 2e-4 learns nothing in six
# epochs. It goes with `batch_size`: steps of 8 rows took 3e-3, and at 5e-3 one seed in two lost
# twenty points. The figures for larger ones are the values that LoRA practice settled on.
_LEARNING_RATES = ((50e6, 2e-3), (1e9, 5e-4), (math.inf, 2e-4))  # (parameters up to, rate)


# Wordings of each question where a recipe names none, and the rows from which on a set has enough
# of its own (benchmarks/training/GATE.md).
_VARIANTS, _MANY_ROWS = 4, 5_000
# Rows up to which held-out ones are trained too after the verdict: of 500, the wordings that a test
# part takes away cost eight points of unseen wordings (benchmarks/training/GATE.md), and a second
# training is short.
_REFIT_ROWS = 1_000
# Share of general questions in a pass, and the parameters above which a base has skills to keep:
# the built-in one answers 2 of the 106 general questions (docs/decisions/0021-rehearsal.md).
_REHEARSAL_SHARE, _SKILLED_PARAMETERS = 0.15, 50e6


def chosen_variants(recipe: Recipe, rows: int) -> Recipe:
    """The recipe with its number of question variants, by the number of training rows."""
    if recipe.question_variants or "question_variants" not in METHODS[recipe.method].reads:
        return recipe
    return replace(recipe, question_variants=_VARIANTS if rows < _MANY_ROWS else 1)


def _chosen_rehearsal(recipe: Recipe, parameters: int) -> float | None:
    if recipe.rehearsal_share is not None or "rehearsal_share" not in METHODS[recipe.method].reads:
        return recipe.rehearsal_share
    return _REHEARSAL_SHARE if parameters > _SKILLED_PARAMETERS else 0.0


def chosen_refit(recipe: Recipe, rows: int, *, holds_out: bool) -> Recipe:
    """The recipe with its choice whether held-out rows are trained too after the verdict.

    `rows`: training rows and held-out ones. `holds_out`: the run took the test rows out of its own;
    rows that somebody gave to judge by are never trained on unasked.
    """
    if recipe.refit is not None or "refit" not in METHODS[recipe.method].reads:
        return recipe
    return replace(recipe, refit=holds_out and rows <= _REFIT_ROWS and recipe.processes == 1)


def resolved(recipe: Recipe, *, parameters: int, max_length: int) -> Recipe:
    """The recipe with the choices filled in that follow from the base alone (`threads` is measured
    later).
    """
    method = METHODS[recipe.method]
    by_size = next(rate for limit, rate in _LEARNING_RATES if parameters <= limit) * method.rate
    return replace(
        recipe,
        learning_rate=recipe.learning_rate or by_size,
        max_length=min(recipe.max_length or max_length, max_length),
        loss_type=recipe.loss_type or next(iter(method.losses), ""),
        rehearsal_share=_chosen_rehearsal(recipe, parameters),
    )
