"""`whet eval report`, `votes`, `judge`, `sign`: what is known of a stored version."""

from __future__ import annotations

import os
from pathlib import Path

from training.commands.tables import (
    progress_bar,
    report_table,
    votes_table,
)
from training.evaluation import ballots
from training.evaluation import harness as benchmarks
from training.evaluation import report as reports
from training.evaluation.judge_endpoint import judge_at
from training.evaluation.opinion import KEY_VARIABLE, opinion
from training.evaluation.signing import sign as record
from whet.cli import actor, emit, opened, out
from whet.clock import iso, now_ms
from whet.database import reading
from whet.errors import InputError
from whet.registry import find_adapter


def report(*, adapter: str, html: Path | None, as_json: bool) -> None:
    """Everything measured about a version: measures by task, forgetting, bias, refusals, people's
    votes, another model's opinion.
    """
    with opened() as context:
        with reading(context.database) as connection:
            version = find_adapter(connection, adapter)
        found = reports.stored_report(context, version)
        found["harness"] = benchmarks.stored_results(context, version)
        if html is not None:
            try:
                html.write_text(reports.html(found), encoding="utf-8")
            except OSError as error:
                raise InputError(
                    f"{html} cannot be written: {error.strerror}.",
                    hint="Name a file in a folder that exists.",
                ) from error
        if as_json:
            emit(found, True)
            return
        out.print(f"[bold]{found['adapter']}[/bold]  gate {found['gate']['verdict']}: ", end="")
        out.print(found["gate"]["reason"], markup=False)
        if "votes" in found:
            out.print(found["votes"]["sentence"], markup=False)
        for title, measures in reports.sections(found).items():
            emit(report_table(measures), False, title=title)
        if "opinion" in found:
            out.print(found["opinion"]["sentence"], markup=False)
        for each in found["harness"]:
            title = f"lm-eval {each['harness']}, {iso(each['at'])[:16]}"
            emit(benchmarks.table(each), False, title=title)


def votes(*, adapter: str, as_json: bool) -> None:
    """What people said who compared a version's answers blind in the console: whom they prefer, and
    how far they agree.
    """
    with opened() as context:
        with reading(context.database) as connection:
            version = find_adapter(connection, adapter)
        found = ballots.result(context, ballots.newest_case(context, version))
        if as_json:
            emit(found, True)
            return
        out.print(found["sentence"], markup=False)
        if found["votes"]:
            emit(votes_table(found), False)
            out.print(found["said_agreement"], markup=False)


def judge(*, adapter: str, url: str, model: str, limit: int, as_json: bool) -> None:
    """Ask another model which answers are better, in both orders, and how far it agrees with
    people. It decides nothing.
    """
    with opened() as context:
        with reading(context.database) as connection:
            version = find_adapter(connection, adapter)
        with progress_bar(as_json, "asking the judge") as on_row:
            asked = judge_at(url, model, os.environ.get(KEY_VARIABLE, ""))
            people = ballots.people_say(context, ballots.newest_case(context, version))
            found = opinion(
                context,
                version,
                asked,
                judge={"endpoint": url, "model": model},
                limit=limit,
                people=people,
                on_row=on_row,
            )
        if as_json:
            emit(found, True)
            return
        out.print(found["sentence"], markup=False)


def sign(*, adapter: str, reason: str, as_json: bool) -> None:
    """Answer for the reviewed conversations that a version breaks, so that it may be promoted
    without --force.
    """
    with opened() as context:
        emit(record(context, adapter, reason, actor=actor(), now=now_ms()), as_json)
