"""Runs: what trains now, what trained, and one run in full.

Queries and words only; nothing here needs torch.
"""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection, select
from starlette.responses import JSONResponse, Response

from training.recipes.recipe_checks import relevant_fields
from training.store import runs
from training.store.evaluation_types import EvaluationRow, Metrics
from training.store.table_rows import (
    Progress,
    RunRecipe,
    ShownRun,
    WaitingRequest,
    evaluation_row,
    run_row,
)
from training.web import answers as answer_pages
from training.web import votes as vote_pages
from training.web.words import (
    DATA_IN_RECIPE,
    estimated,
    is_silent,
    run_headline,
    said_progress,
    said_value,
)
from whet.access import User
from whet.clock import iso
from whet.database import reading
from whet.errors import NotFoundError
from whet.registry import alias_filter
from whet.tables import adapters, datasets, evaluations, training_requests, training_runs
from whet.web.filters import clip, plural, relative
from whet.web.shell import Shell

_PAGE_ROWS = 30
ENDS = {runs.SUCCEEDED: "succeeded", runs.FAILED: "failed", runs.CANCELLED: "were cancelled"}
STAGES = ("loading", "training", "evaluating", "storing")
GROUPS = {
    "old": ("Old", "held-out rows that came from files"),
    "new": ("New", "held-out rows that came from reviews"),
    "regression": ("Corrected before", "every conversation that people reviewed so far"),
    "all": ("Old and new together", "all held-out rows"),
    "text": ("Plain texts", "held-out texts, by the mean probability of a byte"),
    "reliance": (
        "Passages followed",
        "questions whose passages say otherwise than their answer: share that follows them",
    ),
}


def router(shell: Shell) -> APIRouter:
    """Entry point `whet.pages`."""
    shell.add_page("Runs", "/runs", "runs", 40, key="u")
    routes = APIRouter(dependencies=[Depends(shell.require("viewer"))])

    @routes.get("/runs")
    def run_list(request: Request, alias: str = "", state: str = "", before: int = 0) -> Response:
        """What trains now, what waits, what trained."""
        return shell.render(
            request, "training/runs.html", **_list_values(shell, alias[:64], state, before)
        )

    @routes.get("/runs/live")
    def run_list_live(request: Request, alias: str = "", state: str = "") -> Response:
        """The list as a part that follows what happens."""
        return shell.render(
            request, "training/runs_live.html", **_list_values(shell, alias[:64], state, 0)
        )

    @routes.get("/runs/{run_id}")
    def run_page(request: Request, run_id: str) -> Response:
        """One run: progress, loss curve, gate, data, recipe."""
        return shell.render(request, "training/run.html", **_run_values(shell, run_id))

    @routes.get("/runs/{run_id}/live")
    def run_live(request: Request, run_id: str, part: str = "top") -> Response:
        """The parts of a run's page that follow it: `part=top` or `rest`."""
        values = _run_values(shell, run_id)
        response = shell.render(
            request,
            "training/run_top.html" if part == "top" else "training/run_rest.html",
            **values,
        )
        if values["run"]["state"] != runs.RUNNING:
            response.headers["x-live"] = "done"
        return response

    _add_data(routes, shell)
    answer_pages.add(routes, shell)
    vote_pages.add(routes, shell)
    return routes


def _add_data(routes: APIRouter, shell: Shell) -> None:
    """What scripts and charts read of runs, and how one is stopped."""

    @routes.get("/runs/{run_id}/curve")
    def run_curve(run_id: str) -> Response:
        """`{"state", "curve": [[step, loss, seconds, learning rate], …], "validation": [[step,
        loss], …]}`; for the chart.
        """
        row = _row(shell, run_id)
        return JSONResponse(
            {
                "state": row["state"],
                "curve": row["curve"],
                "validation": (row["progress"] or {}).get("validation", []),
            }
        )

    @routes.get("/api/runs")
    def run_json(alias: str = "", limit: int = 20) -> Response:
        """Runs, newest first, as `whet train list --json` prints them."""
        with reading(shell.context.database) as connection:
            chosen = alias_filter(connection, alias)
            rows = runs.newest(connection, chosen, min(max(1, limit), 1000))
        return JSONResponse(
            [{key: value for key, value in row.items() if key != "curve"} for row in rows]
        )

    @routes.post("/runs/{run_id}/cancel")
    def cancel(run_id: str, user: User = Depends(shell.require("operator"))) -> Response:
        """Stop a run at its next step, or withdraw a request that no worker has taken up."""
        row = runs.request_cancel(shell.context, run_id, actor=user.name, now=shell.now())
        is_over = row["state"] == runs.CANCELLED
        when = "was cancelled" if is_over else "stops at its next step"
        sentence = f"The run {when} and leaves nothing behind; its examples count as new again."
        return shell.redirect(f"/runs/{row['id']}", sentence)


def _list_values(shell: Shell, alias: str, state: str, before: int) -> dict[str, Any]:
    state = state if state in ENDS else ""
    some = [training_runs.c.alias.startswith(alias, autoescape=True)] if alias else []
    newest = (
        select(training_runs)
        .where(*some)
        .order_by(training_runs.c.started_at.desc(), training_runs.c.id.desc())
    )
    query = newest.where(
        training_runs.c.state == state if state else training_runs.c.state != runs.RUNNING
    ).limit(_PAGE_ROWS + 1)
    if before > 0:
        query = query.where(training_runs.c.started_at < min(before, 2**62))
    with reading(shell.context.database) as connection:
        ended = [run_row(row) for row in connection.execute(query)]
        # Asked for by themselves: a long run is older than the page that the short ones after it
        # fill.
        now_on = (
            []
            if before > 0 or state
            else [
                run_row(row)
                for row in connection.execute(
                    newest.where(training_runs.c.state == runs.RUNNING).limit(_PAGE_ROWS)
                )
            ]
        )
        _add_results(connection, [*now_on, *ended])
        waiting = [] if before > 0 or state or alias else _waiting(connection)
    older = ended[_PAGE_ROWS - 1]["started_at"] if len(ended) > _PAGE_ROWS else 0
    ended, now = ended[:_PAGE_ROWS], shell.now()
    for row in [*now_on, *ended]:
        row["spark"] = sparkline(row["curve"])
        row["silent"] = is_silent(row, now)
    headline = list_headline([*now_on, *ended], len(waiting), now)
    if before > 0 or state or alias:  # a part of the list does not say what trains now
        since = f", started before {iso(before)[:16].replace('T', ' ')} UTC" if before > 0 else ""
        said = f"Runs{f' of {alias}…' if alias else ''}{f' that {ENDS[state]}' if state else ''}{since}"
        headline = f"{said}; {list_headline(now_on, 0, now)}" if now_on else said
    return {
        "running": now_on,
        "ended": ended,
        "waiting": waiting,
        "older": older,
        "filters": {"alias": alias, "state": state},
        "filtered": urlencode(
            {name: value for name, value in (("alias", alias), ("state", state)) if value}
        ),
        "states": ENDS,
        "before": before,
        "headline": headline,
        "settings": shell.context.settings,
        "share": share,
    }


def list_headline(rows: list[ShownRun], waiting: int, now: int) -> str:
    """The sentence of the list page; `rows` newest first."""
    running = [row for row in rows if row["state"] == runs.RUNNING]
    silent = [row for row in running if row.get("silent")]
    going = [row for row in running if not row.get("silent")]
    if going:
        first = going[0]
        rest = f", and {plural(len(going) - 1, 'other')}" if len(going) > 1 else ""
        lost = (
            f"; {plural(len(silent), 'run')} {'is' if len(silent) == 1 else 'are'} silent"
            if silent
            else ""
        )
        return f"{first['alias']} is in training: {said_progress(first)}{rest}{lost}"
    if len(silent) == 1:
        return run_headline(silent[0], None, now)
    if silent:
        return f"{plural(len(silent), 'run').capitalize()} are silent: their processes may be gone"
    if waiting:
        return (
            f"{plural(waiting, 'request').capitalize()} for training"
            f" {'waits' if waiting == 1 else 'wait'} for a worker"
        )
    if not rows:
        return "Nothing has been trained yet"
    last = rows[0]
    if last["state"] == runs.SUCCEEDED:
        return (
            "Nothing trains now; the last run made"
            f" {last['label'] or 'a version that was removed'} {relative(last['finished_at'] or now, now)}"
        )
    return (
        "Nothing trains now; the last run"
        f" {'failed' if last['state'] == runs.FAILED else 'was cancelled'} {relative(last['finished_at'] or last['started_at'], now)}"
    )


def share(progress: Progress) -> float:
    """How far the training steps are, 0 to 1."""
    return min(1.0, progress.get("step", 0) / progress["steps"]) if progress.get("steps") else 0.0


def _waiting(connection: Connection) -> list[WaitingRequest]:
    claimed = (
        select(training_runs.c.id)
        .where(training_runs.c.request_id == training_requests.c.id)
        .exists()
    )
    query = (
        select(training_requests, datasets.c.name, datasets.c.version)
        .join(datasets, datasets.c.digest == training_requests.c.dataset_digest, isouter=True)
        .where(~claimed)
        .order_by(training_requests.c.created_at)
        .limit(20)
    )
    return [cast(WaitingRequest, dict(row._mapping)) for row in connection.execute(query)]


def _add_results(connection: Connection, rows: list[ShownRun]) -> None:
    """`label` and `gate` of the adapter that each run made."""
    digests = [row["adapter_digest"] for row in rows if row["adapter_digest"]]
    made = {
        row.digest: row
        for row in connection.execute(select(adapters).where(adapters.c.digest.in_(digests)))
    }
    for row in rows:
        adapter = made.get(row["adapter_digest"])
        row["label"] = f"{adapter.name}@v{adapter.version}" if adapter else ""
        row["adapter_href"] = f"/adapters/{adapter.name}/v{adapter.version}" if adapter else ""
        row["gate"] = adapter.gate if adapter else ""


def sparkline(curve: list[list[float]], width: float = 96, height: float = 20) -> str:
    """An SVG path of the loss over the steps; empty with fewer than two points."""
    points = [(float(point[0]), float(point[1])) for point in curve if len(point) >= 2]
    if len(points) < 2:
        return ""
    keep = points[:: max(1, len(points) // 200)]
    left, right = keep[0][0], keep[-1][0]
    low, high = min(loss for _, loss in keep), max(loss for _, loss in keep)
    span = (high - low) or 1.0
    spots = [
        f"{width * (step - left) / ((right - left) or 1):.1f} {1 + (height - 2) * (high - loss) / span:.1f}"
        for step, loss in keep
    ]
    return "M" + "L".join(spots)


def _row(shell: Shell, run_id: str) -> ShownRun:
    with reading(shell.context.database) as connection:
        row = connection.execute(select(training_runs).where(training_runs.c.id == run_id)).first()
    if row is None:
        raise NotFoundError(
            f"There is no run {clip(run_id, 60)!r}.", hint="`whet train list` prints them."
        )
    return run_row(row)


def _run_values(shell: Shell, run_id: str) -> dict[str, Any]:
    row = _row(shell, run_id)
    now = shell.now()
    with reading(shell.context.database) as connection:
        _add_results(connection, [row])
        dataset = _mapping(
            connection, select(datasets).where(datasets.c.digest == row["dataset_digest"])
        )
        request = (
            _mapping(
                connection,
                select(training_requests).where(training_requests.c.id == row["request_id"]),
            )
            if row["request_id"]
            else None
        )
        evaluation = _newest_evaluation(connection, run_id)
        against = (
            _mapping(
                connection,
                select(adapters.c.name, adapters.c.version).where(
                    adapters.c.digest == evaluation["against_digest"]
                ),
            )
            if evaluation
            else None
        )
    row["silent"] = is_silent(row, now)
    curve = row["curve"] or []
    return {
        "run": row,
        "headline": run_headline(row, evaluation, now),
        "progress": row["progress"] or {},
        "share": share(row["progress"] or {}),
        "stages": STAGES,
        "elapsed_ms": (row["finished_at"] or now) - row["started_at"],
        "estimate": row["estimate"] or {},
        "estimated": estimated(row["estimate"] or {}),
        "memory": [
            (part, f"{size / 1e6:,.0f} MB")
            for part, size in (row["estimate"] or {}).get("memory", {}).items()
        ],
        "file_rows": _file_rows(row),
        "dataset": dataset,
        "training_request": request,
        "evaluation": evaluation,
        "against": f"{against['name']}@v{against['version']}" if against else "the base",
        **_group_values(evaluation["metrics"] if evaluation else {}),
        "recipe": [
            (name, said_value(value))
            for name, value in relevant_fields(row["recipe"] or {}).items()
            if name not in DATA_IN_RECIPE
        ],
        "thresholds": json.dumps(evaluation["thresholds"], indent=1) if evaluation else "",
        "spark": sparkline(curve, 640, 200),
        "first_loss": curve[0][1] if curve else None,
        "last_loss": curve[-1][1] if curve else None,
    }


def _newest_evaluation(connection: Connection, run_id: str) -> EvaluationRow | None:
    query = select(evaluations).where(evaluations.c.run_id == run_id)
    found = connection.execute(query.order_by(evaluations.c.created_at.desc()).limit(1)).first()
    return evaluation_row(found) if found else None


def _group_values(metrics: Metrics) -> dict[str, object]:
    """The groups of held-out rows with their figures, and the titles of those without rows."""
    return {
        "groups": [
            (title, what, metrics[name])
            for name, (title, what) in GROUPS.items()
            if name in metrics and metrics[name].get("n")
        ],
        "without_rows": [
            title
            for name, (title, _) in GROUPS.items()
            if name in metrics and not metrics[name]["n"]
        ],
    }


def _file_rows(row: ShownRun) -> dict[str, int]:
    """Rows by part; runs of before there were parts have one number."""
    rows = (row["recipe"] or RunRecipe()).get("rows")
    return rows if isinstance(rows, dict) else {}


def _mapping(connection: Connection, query: Any) -> dict[str, Any] | None:
    row = connection.execute(query.limit(1)).first()
    return dict(row._mapping) if row else None
