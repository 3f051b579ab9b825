"""The page of one incident and what people do on it: owner, note, snooze, state, undo."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy import Connection, RowMapping, select
from starlette.responses import JSONResponse, Response

from monitoring import incident_actions, queries, report_store, views
from monitoring.alert_store import find_alert, list_alerts
from monitoring.incident_scope import (
    count_affected,
    list_similar,
    load_changes,
    load_live_version,
)
from whet.access import User, same_group
from whet.conversation import answer_of, last_question
from whet.database import reading
from whet.errors import InputError
from whet.tables import interactions, ratings, review_items
from whet.web.shell import Shell

_EXAMPLES = 20  # conversations per page of an incident
_DEEDS = {"acknowledge": "acknowledged", "expected": "expected", "resolve": "resolved"}
_SAID = {
    "acknowledged": "Acknowledged. It stays open until the change is gone or you close it.",
    "expected": "Marked as expected. The traffic from now on is the new normal.",
    "resolved": "Resolved. If the change is still there, the next run opens a new incident.",
}
SNOOZES = {"1": "1 hour", "4": "4 hours", "12": "12 hours", "24": "a day", "72": "3 days",
           "168": "a week"}  # fmt: skip
_HOUR_MS = 3_600_000


def add_incident_routes(routes: APIRouter, shell: Shell) -> None:
    """Add the incident's page, its actions, and the same for programs."""
    _add_reading(routes, shell)
    _add_work(routes, shell)
    _add_states(routes, shell)


def _add_reading(routes: APIRouter, shell: Shell) -> None:
    @routes.get("/drift/incidents/{alert_id}", dependencies=[Depends(shell.require("viewer"))])
    def incident(request: Request, alert_id: str, page: int = 1) -> Response:
        """One incident: what changed, since when, for whom, what was done, what to do."""
        return shell.render(
            request, "monitoring/incident.html", **_incident(shell, alert_id, max(1, page))
        )


def _add_work(routes: APIRouter, shell: Shell) -> None:
    context, operator = shell.context, Depends(shell.require("operator"))

    def back(alert_id: str, sentence: str) -> Response:
        return shell.redirect(f"/drift/incidents/{alert_id}", sentence)

    @routes.post("/drift/incidents/{alert_id}/assign")
    def assign(
        alert_id: str,
        owner: Annotated[str, Form()] = "",
        reason: Annotated[str, Form()] = "",
        user: User = operator,
    ) -> Response:
        """Say who looks after an incident."""
        incident_actions.assign(
            context, alert_id, owner, actor=user.name, now=shell.now(), reason=reason
        )
        return back(alert_id, f"{owner} looks after it." if owner else "Nobody looks after it.")

    @routes.post("/drift/incidents/{alert_id}/snooze")
    def snooze(
        alert_id: str,
        hours: Annotated[str, Form()] = "",
        reason: Annotated[str, Form()] = "",
        user: User = operator,
    ) -> Response:
        """Remind nobody of an incident for some hours; without hours: from now on again."""
        if hours and hours not in SNOOZES:
            raise InputError(f"{hours[:20]!r} is not one of {', '.join(SNOOZES)} hours.")
        until = shell.now() + int(hours) * _HOUR_MS if hours else None
        incident_actions.snooze(
            context, alert_id, until, actor=user.name, now=shell.now(), reason=reason
        )
        return back(alert_id, f"Snoozed for {SNOOZES[hours]}." if hours else "It is back.")

    @routes.post("/drift/incidents/{alert_id}/note")
    def note(alert_id: str, text: Annotated[str, Form()] = "", user: User = operator) -> Response:
        """Keep a note on an incident."""
        incident_actions.add_note(context, alert_id, text, actor=user.name, now=shell.now())
        return back(alert_id, "Noted.")

    @routes.post("/drift/actions/{action_id}/undo")
    def undo(action_id: str, user: User = operator) -> Response:
        """Take the newest action on an incident back."""
        row = incident_actions.undo(context, action_id, actor=user.name, now=shell.now())
        return back(row.id, "Undone. The incident is as it was before.")


def _add_states(routes: APIRouter, shell: Shell) -> None:
    operator = Depends(shell.require("operator"))

    @routes.post("/drift/incidents/{alert_id}/{deed}")
    def change(
        alert_id: str, deed: str, reason: Annotated[str, Form()] = "", user: User = operator
    ) -> Response:
        """`acknowledge`, `expected` or `resolve` an incident."""
        state = _state_of(deed)
        incident_actions.change_state(
            shell.context, alert_id, state, actor=user.name, now=shell.now(), reason=reason
        )
        return shell.redirect(f"/drift/incidents/{alert_id}", _SAID[state])

    @routes.post("/api/alerts/{alert_id}/{deed}")
    def change_by_program(
        alert_id: str, deed: str, reason: str = "", user: User = operator
    ) -> JSONResponse:
        """`acknowledge`, `expected` or `resolve`; the alert as it is then."""
        found = incident_actions.change_state(
            shell.context, alert_id, _state_of(deed), actor=user.name, now=shell.now(),
            reason=reason,
        )  # fmt: skip
        return JSONResponse(found.as_json())


def _state_of(deed: str) -> str:
    if deed not in _DEEDS:
        raise InputError(
            f"{deed[:40]!r} cannot be done to an incident; expected one of {', '.join(_DEEDS)}."
        )
    return _DEEDS[deed]


def _incident(shell: Shell, alert_id: str, page: int) -> dict[str, object]:
    now = shell.now()
    with reading(shell.context.database) as connection:
        row = find_alert(connection, alert_id)
        one = views.incident(row, now)
        pages = max(1, -(-len(one.interaction_ids) // _EXAMPLES))
        page = min(page, pages)
        shown = one.interaction_ids[(page - 1) * _EXAMPLES : page * _EXAMPLES]
        latest = report_store.latest_report(connection, one.alias)
        others = [
            views.incident(other, now)
            for other in list_alerts(connection, one.alias, only_open=True)
            if other.id != alert_id
        ]
        values: dict[str, object] = {
            "examples": _examples(connection, shown, [word.word for word in one.words]),
            "review": queries.review_states(connection, alert_id, one.interaction_ids),
            "notifications": queries.list_notifications(
                connection, alert_id, shell.context.settings
            ),
            "report": report_store.report_if_there(connection, one.report_id),
            "affected": count_affected(connection, row, one.since_at, now),
            "live": load_live_version(connection, one.alias, now),
            "changes": load_changes(connection, one.alias, one.since_at),
            "similar": [views.incident(other, now) for other in list_similar(connection, row)],
            "actions": incident_actions.list_actions(connection, alert_id),
            "people": incident_actions.list_people(connection),
        }
    window_from = row.detail.window_from
    onset = one.since_at if one.since_is_exact else None
    found = (views.chart(signal, window_from, onset) for signal in one.signals)
    return values | {
        "one": one,
        "charts": [chart for chart in found if chart],
        "page": page,
        "page_count": pages,
        "settings": shell.context.settings,
        "snoozes": SNOOZES,
        "quality": next(
            (
                signal
                for signal in (latest.signals if latest and latest.signals else ())
                if signal.name == "thumbs_down"
            ),
            None,
        ),
        "others": others,
        "p_text": views.p_text,
    }


_EXAMPLE_COLUMNS = (
    "id", "created_at", "request", "response", "response_text", "adapter", "version",
)  # fmt: skip


def _answer_text(row: RowMapping) -> str:
    return answer_of(row["request"], row["response"], row["response_text"]).text


def _examples(connection: Connection, ids: list[str], words: list[str]) -> list[dict[str, object]]:
    """The conversations in the order of `ids`; those that were erased meanwhile are left out."""
    columns = [interactions.c[name] for name in _EXAMPLE_COLUMNS]
    found = {
        row["id"]: row
        for row in connection.execute(select(*columns).where(interactions.c.id.in_(ids))).mappings()
    }
    queued = {
        row.interaction_id: row.state
        for row in connection.execute(
            select(review_items.c.interaction_id, review_items.c.state).where(
                review_items.c.interaction_id.in_(ids)
            )
        )
    }
    counted = (
        select(ratings.c.interaction_id, ratings.c.rating)
        .join(interactions, interactions.c.id == ratings.c.interaction_id)
        .where(
            ratings.c.interaction_id.in_(ids),
            same_group(ratings.c.api_key_id, interactions.c.api_key_id),
        )
        .order_by(ratings.c.created_at)
    )
    rated = {row.interaction_id: row.rating for row in connection.execute(counted)}
    return [
        {
            "id": one,
            "created_at": found[one]["created_at"],
            "question": views.marked(last_question(found[one]["request"]), words),
            "answer": views.marked(_answer_text(found[one]), words, 160),
            "review": queued.get(one, ""),
            "rating": rated.get(one),
        }
        for one in ids
        if one in found
    ]
