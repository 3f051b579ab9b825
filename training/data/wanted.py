"""Which rows a method learns from, and what to say of a file that holds others."""

from __future__ import annotations

from collections.abc import Sequence

from training.data.bad_lines import BadLine
from training.data.rows import Row
from training.recipes.methods import ANSWERS, PREFERENCES, RATINGS, Method
from whet.errors import InputError

# Kind of rows → (what others are, what to do about them).
_OTHERS = {
    ANSWERS: (
        "are rated as bad answers (rating -1, or label false), which {} would learn as right",
        "Leave them out with --skip-bad, or use --method kto, which learns from both.",
    ),
    PREFERENCES: (
        "have no chosen and rejected answer, which {} learns from",
        "Give preference rows, leave the others out with --skip-bad, or use a method that learns "
        "from answers, such as lora.",
    ),
    RATINGS: (
        'are neither preferences nor rated ("rating": 1 or -1, or "label": true or false), which '
        "{} learns from",
        "Rate the rows, leave the others out with --skip-bad, or use a method that learns from "
        "answers, such as lora.",
    ),
}


def fits(method: Method, row: Row) -> bool:
    """Tell whether a method learns from a row."""
    if method.rows == ANSWERS:
        return row.rating >= 0
    return row.kind == "preference" or (method.rows == RATINGS and row.rating != 0)


def describe_others(method: Method, rows: Sequence[Row]) -> tuple[str, str, list[Row]]:
    """Return (sentence, what to do, the rows) for rows that a method does not learn from.

    The sentence is empty when there are none. `whet data check` and `whet train run` both say it.
    """
    others = [row for row in rows if not fits(method, row)]
    if not others:
        return "", "", []
    what, do = _OTHERS[method.rows]
    first = f" (the first on line {others[0].line})"
    found = f"{len(others):,} of {len(rows):,} rows {what.format(method.name)}{first}."
    return found, do, others


def only_fitting(
    method: Method, rows: Sequence[Row], *, skip_bad: bool
) -> tuple[list[Row], list[BadLine]]:
    """Return (rows that a method learns from, the others). Raises InputError for others, unless
    they are to be left out and some rows remain."""
    found, do, others = describe_others(method, rows)
    if not others:
        return list(rows), []
    if not skip_bad or len(others) == len(rows):
        raise InputError(found, hint=do)
    what = _OTHERS[method.rows][0].format(method.name)
    gone = {id(row) for row in others}
    bad = [BadLine(row.line, f"a row of those that {what}", "another row") for row in others]
    return [row for row in rows if id(row) not in gone], bad
