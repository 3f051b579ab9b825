"""Traffic: search over everything that was logged, and one conversation in full.

With the pages of documents (`documents`), whose passages conversations have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection, select
from starlette.responses import Response

from serving.pages import documents, lineage, passage_values, reading, search
from serving.pages.blame import add_blame_routes, blame_values
from serving.pages.export_pages import add_export_routes
from serving.pages.saved_views import add_view_routes, list_views
from serving.pages.search_filters import (
    COLUMNS,
    SORTS,
    STATUSES,
    USUAL_COLUMNS,
    Filters,
)
from serving.pages.search_words import snippet
from serving.pages.thread import load_thread
from serving.search_index.coverage import read_coverage
from serving.search_index.entries import session_of
from serving.search_index.query import Phrase
from whet.access import same_group
from whet.database import reading as reads
from whet.errors import NotFoundError
from whet.registry import current_rollouts, list_adapters
from whet.tables import api_keys, interactions, ratings, review_items, review_left_out, reviews
from whet.traffic_series import PERIODS, TrafficFilter
from whet.web.charts import TrafficCharts
from whet.web.filters import clip, duration, number, plural
from whet.web.shell import Shell
from whet.web.traffic_charts import load_traffic_charts

_MEASURES = (
    ("ttft_ms", "First token", duration),
    ("duration_ms", "Whole answer", duration),
    ("prompt_tokens", "Prompt tokens", number),
    ("completion_tokens", "Answer tokens", number),
)
_WORDS = {name: period.words for name, period in PERIODS.items()} | {"all": "all time"}


def router(shell: Shell) -> APIRouter:
    """Entry point `whet.pages`."""
    shell.add_page("Traffic", "/traffic", "traffic", 10)
    routes = APIRouter(dependencies=[Depends(shell.require("viewer"))])
    runs = add_blame_routes(routes, shell)

    @routes.get("/traffic")
    def traffic(request: Request, batch: str = "") -> Response:
        """Search over everything logged: words, alias, version, outcome, rating, user, tags, time;
        in an order, with the columns one wants, and with charts of the traffic.
        """
        chosen = request.query_params.getlist("column")
        columns = {"columns": ",".join(chosen)} if chosen else {}
        filters = Filters.given({**request.query_params, **columns})
        template = (
            "serving/traffic_rows.html"
            if request.headers.get("hx-request")
            else "serving/traffic.html"
        )
        values = _list_values(shell, filters, shell.user(request).name)
        return shell.render(request, template, batch=batch[:40], **values)

    add_view_routes(routes, shell)
    add_export_routes(routes, shell)

    @routes.get("/traffic/{interaction_id}")
    def conversation(request: Request, interaction_id: str) -> Response:
        """One conversation with its timings, passages, ratings, lineage and the command that asks
        it again.
        """
        values = _conversation_values(shell, interaction_id)
        values["blame"] = blame_values(shell, runs, interaction_id)
        return shell.render(request, "serving/conversation.html", **values)

    documents.add(routes, shell)
    return routes


def _list_values(shell: Shell, filters: Filters, user: str) -> dict[str, Any]:
    now = shell.now()
    with reads(shell.context.database) as connection:
        newest = search.newest_at(connection)
        found = search.search(connection, filters, now)
        flags = search.flags(connection, [row["id"] for row in found.rows])
        coverage = read_coverage(connection, now) if search.needs_index(filters) else None
        charts = _charts(connection, filters, now) if newest is not None else None
        views = list_views(connection, user)
        aliases = sorted(
            {
                *current_rollouts(connection),
                *(adapter.name for adapter in list_adapters(connection)),
            }
        )
    rows = [_row(row, flags[row["id"]], found.phrases) for row in found.rows]
    return {
        "filters": filters,
        "rows": rows,
        "found": found,
        "coverage": coverage,
        "views": views,
        "columns": filters.shown_columns,
        "all_columns": COLUMNS,
        "usual_columns": ",".join(USUAL_COLUMNS),
        "sorts": SORTS,
        "sort_rows": search.SORT_ROWS,
        "newest": newest,
        "aliases": aliases,
        "periods": _WORDS,
        "charts_of": charts,
        "not_in_charts": bool(filters.q or filters.status or filters.rating or filters.user),
        "ranges": PERIODS,
        "statuses": STATUSES,
        "headline": _headline(filters, found.total, newest),
        "older": filters.address(before=found.next) if found.next else "",
        "settings": shell.context.settings,
    }


def _charts(connection: Connection, filters: Filters, now: int) -> TrafficCharts:
    """The charts under the filters that the buckets know; all of time is drawn as 30 days."""
    digits = filters.version.lstrip("v")
    version = 0 if filters.version == "base" else int(digits) if digits.isdecimal() else None
    others = ("q", "version", "status", "rating", "user")
    return load_traffic_charts(
        connection,
        "30d" if filters.since == "all" else filters.since,
        now,
        TrafficFilter(filters.alias, version if version is None else min(version, 2**31 - 1)),
        filters={name: getattr(filters, name) for name in others},
        chosen=filters.span,
    )


def _headline(filters: Filters, total: int, newest: int | None) -> str:
    if newest is None:
        return "Nothing has been logged yet"
    period = "the chosen time" if filters.span else _WORDS[filters.since]
    is_one = total == 1
    if filters.q:
        if not total:
            return f"Nothing says {_quoted(filters.q)} in {period}"
        says = "says" if is_one else "say"
        return f"{_amount(total)} {says} {_quoted(filters.q)} in {period}"
    matches = "" if not filters.narrowed else " matches" if is_one else " match"
    return f"{_amount(total)}{matches} in {period}"


def _amount(total: int) -> str:
    if total > search.COUNT_ROWS:
        return f"More than {number(search.COUNT_ROWS)} conversations"
    return plural(total, "conversation").capitalize()


def _quoted(text: str) -> str:
    return clip(text, 40) if '"' in text else f"“{clip(text, 40)}”"


def _row(row: dict[str, Any], flags: dict[str, Any], wanted: Sequence[Phrase]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "at": row["created_at"],
        "who": label(row),
        "arm": row["arm"],
        "question": snippet(reading.question(row["request"]), wanted, 160),
        "answer": snippet(
            reading.answer_line(row["request"], row["response"], row["response_text"])
            or row["error"]
            or "",
            wanted,
            160,
        ),
        "tokens": row["completion_tokens"],
        "prompt_tokens": row["prompt_tokens"],
        "ttft_ms": row["ttft_ms"],
        "duration_ms": row["duration_ms"],
        "user": row["end_user"],
        "session": session_of(row["metadata"]),
        "status": row["status"],
        "retrieved": len(row["retrieved"] or []),
        **flags,
    }


def label(row: dict[str, Any]) -> str:
    """`support@v7`, or the base under the name it was asked by."""
    return f"{row['adapter']}@v{row['version']}" if row["adapter"] else "base"


def _conversation_values(shell: Shell, interaction_id: str) -> dict[str, Any]:
    now = shell.now()
    with reads(shell.context.database) as connection:
        row = connection.execute(
            select(interactions).where(interactions.c.id == interaction_id)
        ).first()
        if row is None:
            raise NotFoundError(
                f"There is no conversation {clip(interaction_id, 60)!r} in the log.",
                hint="It may have been erased, or be older than the retention period.",
            )
        item = dict(row._mapping)
        counted = select(ratings).where(
            ratings.c.interaction_id == interaction_id,
            same_group(ratings.c.api_key_id, item["api_key_id"]),
        )
        votes = [
            dict(vote._mapping)
            for vote in connection.execute(counted.order_by(ratings.c.created_at))
        ]
        queue = connection.execute(
            select(review_items).where(review_items.c.interaction_id == interaction_id)
        ).first()
        left_out = connection.execute(
            select(review_left_out).where(review_left_out.c.interaction_id == interaction_id)
        ).first()
        decisions = list(
            connection.execute(
                select(reviews)
                .where(reviews.c.interaction_id == interaction_id)
                .order_by(reviews.c.created_at)
            )
        )
        adapter = lineage.adapter_by_digest(connection, item["adapter_digest"])
        trail = lineage.lineage(connection, adapter) if adapter else None
        taught = lineage.taught(connection, interaction_id)
        thread = load_thread(connection, item)
        usual = search.usual(connection, item["alias"], now)
        key_name = connection.execute(
            select(api_keys.c.name).where(api_keys.c.id == item["api_key_id"])
        ).scalar()
    measures = [
        (title, write(item[name]), _range(usual.get(name), item[name], write))
        for name, title, write in _MEASURES
    ]
    parameters = {
        name: value
        for name, value in item["request"].items()
        if name not in ("messages", "prompt", "input", "instructions", "model")
    }
    turns = reading.turns(item["request"], item["response"], item["response_text"])
    answer = turns[-1].text if turns and turns[-1].role == "assistant" else ""
    return {
        "item": item,
        "label": label(item),
        "thread": thread,
        "turns": turns,
        "retrieval": passage_values.describe_retrieval(
            item["retrieval"], item["retrieved"], answer
        ),
        "question": clip(reading.question(item["request"]), 140),
        "votes": votes,
        "queue": queue,
        "left_out": left_out,
        "decisions": decisions,
        "trail": trail,
        "taught": taught,
        "measures": measures,
        "key_name": key_name,
        "parameters": json.dumps(parameters, indent=1, ensure_ascii=False) if parameters else "",
        "metadata": (
            json.dumps(item["metadata"], indent=1, ensure_ascii=False) if item["metadata"] else ""
        ),
        "questions": (
            {
                row["interaction_id"]: clip(reading.question(row["request"]), 90)
                for row in trail.conversations
            }
            if trail
            else {}
        ),
    }


def _range(
    found: tuple[float, float, int] | None, value: float | None, write: Any
) -> tuple[str, str]:
    """(the usual range in words, attention when the value lies outside it)."""
    if found is None:
        return "", ""
    low, high, n = found
    outside = value is not None and not low <= value <= high
    return f"usually {write(low)} to {write(high)} (n = {n})", "attention" if outside else ""
