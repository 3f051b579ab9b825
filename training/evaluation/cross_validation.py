"""Judge a recipe on all rows of a small set: each fold is answered by a model trained on the
others.

Folds hold whole patterns of questions, so that what is asked was not trained in those words (M.
Stone, "Cross-validatory choice and assessment of statistical predictions", 1974). The version
itself is trained on all rows; its score is that of the models beside it, each with a little less to
learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from training.data.datasets import Dataset
from training.data.hold_out import PATTERN, units_of
from training.data.rows import Row
from training.data.split import group_key
from training.evaluation.answering import answer_rows
from training.evaluation.answers import Answer, questions
from training.evaluation.held_out import HeldOut, describe_held_out
from training.loop.loss import Loss
from training.loop.trainer import Step
from training.plan.beside import train_beside
from training.plan.prepare import Prepared
from whet.errors import InputError


@dataclass(frozen=True)
class CrossValidated:
    """The rows that were asked, each with the answer of a model that had not seen its pattern."""

    dataset: Dataset  # those rows as its test part
    answers: Mapping[str, Answer] = field(default_factory=dict)  # by row id
    held_out: HeldOut = field(default_factory=HeldOut)
    folds: int = 0


def fold_of_keys(rows: Sequence[Row], folds: int) -> dict[str, int]:
    """Give each question (or group) a fold; whole patterns stay together, folds are of like size.

    There are fewer folds than asked for where there are fewer patterns.
    """
    keys: dict[str, list[Row]] = {}
    for row in rows:
        keys.setdefault(group_key(row), []).append(row)
    sizes = [0] * folds
    found: dict[str, int] = {}
    units = units_of(keys, PATTERN)
    for unit in sorted(units, key=lambda unit: (-unit.rows, unit.position)):
        smallest = sizes.index(min(sizes))
        sizes[smallest] += unit.rows
        found.update(dict.fromkeys(unit.keys, smallest))
    return found


def cross_validate(
    prepared: Prepared,
    build: Callable[[Prepared], nn.Module],
    *,
    pad_id: int,
    loss_of: Loss,
    on_step: Callable[[int, int], None],
) -> CrossValidated:
    """Train and answer fold by fold; `on_step` is told steps done and steps in all, and may raise.

    `build` makes the untrained model of a run. Raises what training raises.
    """
    if any(row.is_text for row in prepared.dataset.train):
        raise InputError(
            "Plain texts cannot be cross-validated; they are judged by their loss on held-out"
            " texts.",
            hint="Leave --folds out.",
        )
    rows = [row for row in prepared.dataset.train if row.origin != "synthetic"]
    fold_of = fold_of_keys(rows, prepared.recipe.folds)
    whole = replace(prepared.dataset, test=rows)
    asked = questions(whole).held_out
    folds = sorted(set(fold_of.values()))
    answers: dict[str, Answer] = {}
    patterns: dict[str, int] = {}
    known: set[str] = set()
    nearest: dict[str, float] = {}
    total = prepared.steps * len(folds)
    for number in folds:
        part = _without(prepared, {key for key, fold in fold_of.items() if fold == number})
        mine = [row for row in asked if fold_of[group_key(row)] == number]
        if not mine or not part.train:
            continue

        def follow(step: Step, before: int = number * prepared.steps) -> None:
            on_step(before + step.step, total)

        model = build(part)
        train_beside(model, part, pad_id=pad_id, loss_of=loss_of, on_step=follow)
        answers |= answer_rows(model, prepared.encoder, mine)
        facts = describe_held_out(part.dataset.train, mine)
        patterns |= {row_id: number + len(folds) * at for row_id, at in facts.patterns.items()}
        known |= facts.known
        nearest |= facts.nearest
    slices = describe_held_out([], asked).slices
    held_out = HeldOut(patterns, frozenset(known), nearest, slices)
    answered = [row for row in asked if row.id in answers]
    return CrossValidated(replace(whole, test=answered), answers, held_out, len(folds))


def _without(prepared: Prepared, keys: set[str]) -> Prepared:
    """The run without the rows of some keys, and without what was made of them."""
    rows = prepared.dataset.train
    gone_ids = {row.id for row in rows if group_key(row) in keys}
    kept = [
        number
        for number, row in enumerate(rows)
        if group_key(row) not in keys and row.parent not in gone_ids
    ]
    return replace(
        prepared,
        train=[prepared.train[number] for number in kept],
        variants=[[some[number] for number in kept] for some in prepared.variants],
        dataset=replace(prepared.dataset, train=[rows[number] for number in kept]),
    )
