"""Rows whose passages say otherwise, mixed into training, so that a model goes on reading them.

Rows whose passages agree with what the model knows teach it to ignore them (Goyal et al.,
"Context-Parametric Inversion", ICLR 2025, arXiv 2410.10796). Pure functions of rows and a seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from training.data.counterfactual import key_facts, make_counterfactual, manner_of
from training.data.passages import with_passages
from training.data.rows import Row

# Other values that one row is given in a pass: more of them is learning it by heart
MOST_OF_A_ROW = 4


@dataclass(frozen=True)
class Mixture:
    """Counterfactual rows by pass; as many in each, of other values."""

    passes: list[list[Row]]
    usable: int  # training rows that have a key fact to replace
    notice: str

    @property
    def count(self) -> int:
        """Rows of one pass."""
        return len(self.passes[0]) if self.passes else 0


def mix_counterfactuals(
    rows: Sequence[Row], share: float, passes: int, seed: int, texts: Sequence[str] = ()
) -> Mixture:
    """Make rows that are `share` of each pass, fewer where not enough rows have a fact to replace.

    `texts`: passages of the alias's collection, for rows that have none of their own.
    """
    manner = manner_of(rows)
    usable = [row for row in rows if row.context and key_facts(row, manner)]
    usable += with_passages(rows, texts, manner) if texts else []
    wanted = round(share / (1 - share) * len(rows))
    if not usable:
        return Mixture([], 0, _none(share))
    chosen = _chosen(usable, min(wanted, MOST_OF_A_ROW * len(usable)), seed)
    made = [
        [_row(row, f"{seed}:{number}:{turn}", turn, manner) for row, turn in chosen]
        for number in range(passes)
    ]
    # A row that has no other value in one pass (a digit of ten that all occur) is in none.
    kept = [at for at in range(len(chosen)) if all(some[at] for some in made)]
    found = [[row for at in kept if (row := some[at])] for some in made]
    return Mixture(found, len(usable), _said(len(kept), len(rows), share, wanted, len(usable)))


def _chosen(usable: Sequence[Row], count: int, seed: int) -> list[tuple[Row, int]]:
    """Return (row, how often it was taken before): every row once before any is taken again."""
    draw = random.Random(f"{seed}:chosen")
    found: list[tuple[Row, int]] = []
    turn = 0
    while len(found) < count:
        order = draw.sample(list(usable), len(usable))
        found += [(row, turn) for row in order[: count - len(found)]]
        turn += 1
    return found


def _row(row: Row, seed: str, turn: int, manner: frozenset[str]) -> Row | None:
    case = make_counterfactual(row, seed, manner)
    return replace(case.row, id=f"{case.row.id}-{turn}") if case else None


def _none(share: float) -> str:
    return (
        f"counterfactual_share {share:g} adds no row: no training row has passages (`context`) with"
        " a number, date, time, code or name that its answer states."
    )


def _said(made: int, rows: int, share: float, wanted: int, usable: int) -> str:
    text = (
        f"{made} rows whose passages say otherwise are trained beside {rows} rows"
        f" (counterfactual_share {share:g}), made of {usable} rows that state a fact of their"
        " passages."
    )
    if made < wanted:
        text += f" That share would be {wanted}."
    return text
