"""The Drift pages: what is wrong now and since when, every signal's history, one incident with its
conversations.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from monitoring import history_store, queries, report_store, views
from monitoring.alert_store import list_alerts
from monitoring.audit_views import audit_view
from monitoring.change_views import change_headline, change_views
from monitoring.day_views import HOURS_SHOWN, days_view
from monitoring.gap_pages import add_gap_routes
from monitoring.gap_queries import count_open_gaps
from monitoring.incident_pages import add_incident_routes
from monitoring.incident_scope import group_similar
from monitoring.quality_queries import DAY_MS, count_thumbs
from monitoring.rendering import POLICY, evidently_html
from whet.access import User
from whet.database import reading
from whet.lazy import load
from whet.registry import alias_filter
from whet.web.shell import Shell

_HISTORY = 60  # runs in a sparkline: two and a half days of hourly ones
_DAYS = 91  # in the charts by day: the history of nine weeks, and a month of being judged by it
_RUN_DRIFT = "monitoring.run:run_drift"  # imports SciPy: only when somebody asks for a run
_RATED_DAYS = 28  # of thumbs that stand above everything else
_WEEKS = 26  # of error rates: half a year


def router(shell: Shell) -> APIRouter:
    """Entry point `whet.pages`."""
    shell.add_page("Drift", "/drift", "drift", 30)
    routes = APIRouter()
    _reading(routes, shell)
    _deeds(routes, shell)
    add_incident_routes(routes, shell)
    add_gap_routes(routes, shell)
    _api(routes, shell)
    return routes


def _reading(routes: APIRouter, shell: Shell) -> None:
    viewer = [Depends(shell.require("viewer"))]

    @routes.get("/drift", dependencies=viewer)
    def overview(request: Request, alias: str = "") -> Response:
        """What needs somebody, and every signal of one alias."""
        return shell.render(request, "monitoring/drift.html", **_overview(shell, alias))

    @routes.get("/drift/reports/{report_id}", dependencies=viewer)
    def report(request: Request, report_id: str) -> Response:
        """One drift run with every signal."""
        with reading(shell.context.database) as connection:
            row = report_store.find_report(connection, report_id)
            runs = report_store.list_reports(
                connection, row.alias, limit=_HISTORY, signals=True, until=row.created_at
            )
        return shell.render(
            request,
            "monitoring/report.html",
            report=row,
            signals=views.signal_views(runs if runs and runs[0].id == row.id else [row]),
        )

    @routes.get("/drift/reports/{report_id}/evidently", dependencies=viewer)
    def evidently(report_id: str) -> Response:
        """Evidently's page of a run, in a sandbox of its own."""
        with reading(shell.context.database) as connection:
            row = report_store.find_report(connection, report_id)
        return Response(
            evidently_html(shell.context, row),
            media_type="text/html",
            headers={"content-security-policy": POLICY},
        )


def _deeds(routes: APIRouter, shell: Shell) -> None:
    @routes.post("/drift/run")
    def run_now(
        request: Request, alias: str = "", user: User = Depends(shell.require("operator"))
    ) -> Response:
        """Compare the newest traffic now."""
        alias = alias or shell.context.settings.default_alias
        row = load(_RUN_DRIFT)(shell.context, alias, shell.now())
        return shell.redirect(f"/drift?alias={alias}", row.summary)


def _api(routes: APIRouter, shell: Shell) -> None:
    viewer = [Depends(shell.require("viewer"))]

    @routes.get("/api/drift", dependencies=viewer)
    def reports(alias: str = "", limit: int = 50) -> JSONResponse:
        """Drift reports, newest first, without their signals."""
        with reading(shell.context.database) as connection:
            chosen, most = alias_filter(connection, alias), min(max(1, limit), 1000)
            found = report_store.list_reports(connection, chosen, limit=most)
            return JSONResponse([row.values() for row in found])

    @routes.get("/api/drift/{report_id}", dependencies=viewer)
    def report(report_id: str) -> JSONResponse:
        """One drift report with its signals."""
        with reading(shell.context.database) as connection:
            return JSONResponse(report_store.find_report(connection, report_id).values())

    @routes.get("/api/alerts", dependencies=viewer)
    def alerts(alias: str = "", open: bool = False, limit: int = 50) -> JSONResponse:
        """Alerts, open ones first; `open=true` leaves out the closed ones."""
        with reading(shell.context.database) as connection:
            chosen, most = alias_filter(connection, alias), min(max(1, limit), 1000)
            found = list_alerts(connection, chosen, only_open=open, limit=most)
            return JSONResponse([alert.as_json() for alert in found])


def _overview(shell: Shell, alias: str) -> dict[str, object]:
    with reading(shell.context.database) as connection:
        aliases = report_store.aliases_with_reports(connection)
        reports = {name: report_store.latest_report(connection, name) for name in aliases}
        groups = group_similar(list_alerts(connection, only_open=True))
        incidents = [
            views.incident(first, shell.now(), [other.id for other in others])
            for first, *others in groups
        ]
        closed = [
            views.incident(row, shell.now())
            for row in list_alerts(connection, only_closed=True, limit=20)
        ]
        chosen = alias if alias in reports else _first(incidents, aliases)
        runs = (
            report_store.list_reports(connection, chosen, limit=_HISTORY, signals=True)
            if chosen
            else []
        )
        days = history_store.newest_days(connection, chosen, _DAYS) if chosen else []
        hours = (
            history_store.newest_hours(connection, chosen, shell.now() // 3_600_000 - HOURS_SHOWN)
            if chosen
            else []
        )
        weeks = history_store.newest_weeks(connection, chosen, _WEEKS) if chosen else []
        covered = queries.read_coverage(connection, chosen) if chosen else None
        gaps = count_open_gaps(connection)
    by_day = [
        one.by_day
        for one in incidents
        if one.alias == chosen and one.by_day and one.by_day.state == "open"
    ]
    order = {"open": 0, "acknowledged": 1}
    severity = {"bad": 0, "attention": 1, "information": 2}
    incidents.sort(
        key=lambda one: (
            one.snoozed_until is not None,
            order.get(one.state, 2),
            not one.is_about_quality,
            severity.get(one.severity, 3),
            one.opened_at,
        )
    )
    said, below = views.headline(incidents, reports)
    changes = change_views(days)
    if not any(one.is_waiting for one in incidents):
        said, below = change_headline(changes) or (said, below)
    return {
        "answer": said,
        "answer_at": incidents[0].since_at if incidents else None,
        "below": below,
        "incidents": incidents,
        "charts": {one.id: _first_chart(one) for one in incidents},
        "closed": closed,
        "aliases": aliases,
        "chosen": chosen,
        "latest": reports.get(chosen),
        "signals": views.signal_views(runs),
        "runs": runs[:20],
        "days": days_view(days, by_day, hours),
        "changes": changes,
        "audit": audit_view(weeks),
        "ratings": _ratings_sentence(shell, chosen),
        "not_watched": covered.notes() if covered else [],
        "gaps": gaps,
        "settings": shell.context.settings,
    }


def _ratings_sentence(shell: Shell, alias: str) -> str:
    """What users said of the last four weeks' answers; empty where nobody said anything."""
    if not alias:
        return ""
    with reading(shell.context.database) as connection:
        span = (shell.now() - _RATED_DAYS * DAY_MS, shell.now())
        down, rated = count_thumbs(connection, alias, span)
    return f"{down:,} of {rated:,} rated answers have a thumb down." if rated else ""


def _first(incidents: list[views.Incident], aliases: list[str]) -> str:
    """The alias to show when none is asked for: one with an incident, else the first."""
    return next(
        (one.alias for one in incidents if one.alias in aliases), aliases[0] if aliases else ""
    )


def _first_chart(one: views.Incident) -> views.Chart | None:
    charts = (
        views.chart(signal, None, one.since_at if one.since_is_exact else None)
        for signal in one.signals
    )
    return next((chart for chart in charts if chart), None)
