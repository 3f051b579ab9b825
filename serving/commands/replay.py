"""`whet replay`: asks a logged request again, and says which part was at fault."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import Any

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from serving.blame.blame_store import count_verdicts
from serving.blame.gateway_asker import gateway_key
from serving.blame.lookup import Search
from serving.blame.records import Report
from serving.blame.report import as_json as report_json
from serving.blame.report import matrix_rows, name_fault, passage_line, suggest_repair
from serving.blame.run import Options, blame_answer, pending_answers
from serving.blame.searching import open_search
from serving.replay import mark_changes, replay_interaction
from whet.cli import actor, emit, err, opened, out
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import InputError
from whet.lazy import load
from whet.registry import require_alias

_SHOWN_CHARACTERS = 200  # of an answer in the table
# Libraries of a second and more, needed where no retrieval process runs
_SEARCHER = "serving.retrieval.search:IndexSearcher"
_EMBEDDER = "serving.retrieval.embedders:open_embedder"


def replay(
    *,
    interaction_id: str,
    model: str,
    key: str,
    matrix: bool,
    alias: str,
    last: int,
    again: bool,
    passage: str,
    answer: str,
    samples: int,
    as_json: bool,
) -> None:
    """Ask the same request again, of the same or another version, and show what differs."""
    if not matrix:
        _replay(interaction_id, model, key, as_json)
        return
    if model:
        raise InputError(
            "--matrix asks the base, the version that answered and the live one; leave --model out."
        )
    if bool(interaction_id) == bool(alias):
        raise InputError("--matrix wants one interaction id, or --alias NAME.")
    if alias and (passage or answer):
        raise InputError("--passage and --answer are for one interaction, not for --alias.")
    options = Options(passage=passage, answer=answer, samples=samples)
    with opened() as context:
        if alias:
            _blame_alias(context, alias, last, again, key, options, as_json)
        else:
            _blame_one(context, interaction_id, key, options, as_json)


def _replay(interaction_id: str, model: str, key: str, as_json: bool) -> None:
    if not interaction_id:
        raise InputError("No interaction was named.", hint="`whet replay --help` says how.")
    with opened() as context:
        result = replay_interaction(
            context, interaction_id, model=model, key=key, actor=actor(), now=now_ms()
        )
    if as_json:
        emit(result, True)
        return
    facts = {
        "request": interaction_id,
        "answered then by": result["before"]["version"],
        "answers now": result["after"]["version"],
        "same": result["same"],
    }
    emit(facts, False)
    typer.echo(mark_changes(result["before"]["text"], result["after"]["text"], colour=True))


def _blame_one(
    context: Context, interaction_id: str, key: str, options: Options, as_json: bool
) -> None:
    (report,) = _run(context, [interaction_id], key, options)
    if as_json:
        emit(report_json(report), True)
        return
    _show(report)


def _blame_alias(
    context: Context, alias: str, last: int, again: bool, key: str, options: Options, as_json: bool
) -> None:
    with reading(context.database) as connection:
        require_alias(connection, alias)
    reports = _run(context, pending_answers(context, alias, last, again=again), key, options)
    rows = [
        {
            "interaction": report.evidence.case.interaction_id,
            "fault": name_fault(report.verdict.fault, report.verdict.detail),
            "reason": report.verdict.reason,
        }
        for report in reports
    ]
    with reading(context.database) as connection:
        standing = count_verdicts(connection, alias)
    new = Counter(report.verdict.fault.value for report in reports)
    if as_json:
        emit({"alias": alias, "judged": rows, "new": dict(new), "all": standing}, True)
        return
    emit(rows, False, title=f"corrected answers of {alias} without a verdict")
    emit([{"fault": fault, "new": new[fault], "all": standing[fault]} for fault in sorted(standing)],
         False, title=f"verdicts on {alias}")  # fmt: skip


def _run(context: Context, ids: list[str], key: str, options: Options) -> list[Report]:
    reports: list[Report] = []
    with ExitStack() as stack:
        search = stack.enter_context(open_search(context, partial(_local_search, context, stack)))
        asked = stack.enter_context(
            gateway_key(context, "matrix", key=key, actor=actor(), now=now_ms())
        ) if ids else ""  # fmt: skip
        bar = stack.enter_context(Progress(console=err, transient=True))
        task = bar.add_task("starting", total=None)
        for number, interaction_id in enumerate(ids, start=1):

            def show(done: int, total: int, what: str, number: int = number) -> None:
                name = f"{number} of {len(ids)}: {what}" if len(ids) > 1 else what
                bar.update(task, completed=done, total=total, description=escape(name))

            reports.append(
                blame_answer(
                    context, interaction_id, search, key=asked, actor=actor(), now=now_ms(),
                    options=options, progress=show,
                )
            )  # fmt: skip
    return reports


def _local_search(context: Context, stack: ExitStack) -> Search:
    """Search in this process, where no retrieval process runs."""
    searcher = load(_SEARCHER)(context, partial(load(_EMBEDDER), context.settings))
    stack.callback(searcher.close)
    search: Search = searcher.search_now
    return search


def _show(report: Report) -> None:
    verdict, case = report.verdict, report.evidence.case
    table = Table(title=escape(case.question[:_SHOWN_CHARACTERS]), title_justify="left")
    for name in ("", "asked with", "version", "", "answer"):
        table.add_column(name, overflow="fold")
    for row in matrix_rows(report):
        style = "green" if row.is_right else "red" if row.is_right is not None else ""
        mark = f"[{style}]{escape(row.verdict)}[/{style}]" if style else escape(row.verdict)
        text = escape(row.answer[:_SHOWN_CHARACTERS])
        table.add_row(row.cell, row.asked_with, escape(row.version), mark, text)
    facts: dict[str, Any] = {"fault": name_fault(verdict.fault, verdict.detail)}
    facts["reason"] = verdict.reason
    if verdict.also:
        facts["also"] = ", ".join(fault.value for fault in verdict.also)
    if repair := suggest_repair(verdict.fault):
        facts["repair"] = repair
    if line := passage_line(report):
        facts["right passage"] = line
    if verdict.notes:
        facts["notes"] = " ".join(verdict.notes)
    out.print(table)
    emit(facts, False)
