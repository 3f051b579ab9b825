"""Finds and keeps the verdict on one answer, or on the corrected answers of an alias."""

from __future__ import annotations

import msgspec

from serving.blame.blame_store import read_case, reviewed_answers, save_report
from serving.blame.gateway_asker import ask_of_gateway
from serving.blame.lookup import Search, resolve_in
from serving.blame.matrix import SAMPLES, Progress, run_matrix
from serving.blame.records import Report
from whet.context import Context
from whet.database import reading, writing


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a matrix is run. `answer` stands in for a review, `passage` for the search."""

    passage: str = ""
    answer: str = ""
    samples: int = SAMPLES


def blame_answer(
    context: Context,
    interaction_id: str,
    search: Search,
    *,
    key: str,
    actor: str,
    now: int,
    options: Options | None = None,
    progress: Progress = lambda done, total, what: None,
) -> Report:
    """Run the matrix of one logged answer and keep its verdict. Raises NotFoundError."""
    options = options or Options()
    base = context.settings.base_alias
    with reading(context.database) as connection:
        case = read_case(connection, interaction_id, base=base, answer=options.answer)
    report = run_matrix(
        case, ask_of_gateway(context, key, interaction_id), search, resolve_in(context),
        picked=options.passage, samples=options.samples, progress=progress,
    )  # fmt: skip
    with writing(context.database) as connection:
        save_report(connection, report, actor=actor, now=now)
    return report


def pending_answers(context: Context, alias: str, last: int, *, again: bool) -> list[str]:
    """Return the corrected answers of an alias that have no verdict yet, newest first."""
    with reading(context.database) as connection:
        return reviewed_answers(connection, alias, last, again=again)
