"""Runs: what trains now, what trained, and one run in full. Queries and words only; nothing here needs torch."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection, select
from starlette.responses import JSONResponse, Response

from training import runs, vote_pages
from training.judging.report import HELD_OUT, read_report, with_people
from whet.access import User
from whet.database import reading
from whet.errors import NotFoundError
from whet.tables import adapters, datasets, evaluations, training_requests, training_runs
from whet.web.filters import clip, duration, number, plural, relative
from whet.web.shell import Shell

_PAGE_ROWS = 30
_SAMPLES_SHOWN = 60
_SILENT_MS = 120_000  # the trainer writes its heartbeat every 5 s; after this much silence it is gone
STAGES = ("loading", "training", "evaluating", "storing")
GROUPS = {
    "old": ("Old", "held-out rows that came from files"),
    "new": ("New", "held-out rows that came from reviews"),
    "regression": ("Corrected before", "every conversation that people reviewed so far"),
    "all": ("Old and new together", "all held-out rows"),
}


def router(shell: Shell) -> APIRouter:
    """Entry point `whet.pages`."""
    shell.add_page("Runs", "/runs", "runs", 40, key="u")
    routes = APIRouter(dependencies=[Depends(shell.require("viewer"))])

    @routes.get("/runs")
    def run_list(request: Request, alias: str = "", before: int = 0) -> Response:
        """What trains now, what waits, what trained."""
        return shell.render(request, "training/runs.html", **_list_values(shell, alias[:64], before))

    @routes.get("/runs/live")
    def run_list_live(request: Request, alias: str = "") -> Response:
        """The list as a part that follows what happens."""
        return shell.render(request, "training/runs_live.html", **_list_values(shell, alias[:64], 0))

    @routes.get("/runs/{run_id}")
    def run_page(request: Request, run_id: str) -> Response:
        """One run: progress, loss curve, gate, data, recipe."""
        return shell.render(request, "training/run.html", **_run_values(shell, run_id))

    @routes.get("/runs/{run_id}/live")
    def run_live(request: Request, run_id: str, part: str = "top") -> Response:
        """The parts of a run's page that follow it: `part=top` or `rest`."""
        values = _run_values(shell, run_id)
        response = shell.render(request, "training/run_top.html" if part == "top" else "training/run_rest.html", **values)
        if values["run"]["state"] != runs.RUNNING:
            response.headers["x-live"] = "done"
        return response

    @routes.get("/runs/{run_id}/curve")
    def run_curve(run_id: str) -> Response:
        """`{"state", "curve": [[step, loss, seconds, learning rate], …], "validation": [[step, loss], …]}`; for the chart."""
        row = _row(shell, run_id)
        return JSONResponse({"state": row["state"], "curve": row["curve"], "validation": (row["progress"] or {}).get("validation", [])})

    @routes.get("/runs/{run_id}/samples")
    def run_samples(request: Request, run_id: str, show: str = "broken") -> Response:
        """Answers of a run and of what it was compared with: `show=broken`, `fixed` or `same`."""
        return shell.render(request, "training/samples.html", **_sample_values(shell, run_id, show))

    @routes.get("/runs/{run_id}/report")
    def run_report(request: Request, run_id: str) -> Response:
        """The evaluation report of a run's version: every measure, forgetting, bias, refusals, people's votes, another model's opinion."""
        return shell.render(request, "training/report.html", **_report_values(shell, run_id))

    @routes.get("/api/runs")
    def run_json(alias: str = "", limit: int = 20) -> Response:
        """Runs, newest first, as `whet train list --json` prints them."""
        with reading(shell.context.database) as connection:
            rows = runs.newest(connection, alias or None, min(max(1, limit), 1000))
        return JSONResponse([{key: value for key, value in row.items() if key != "curve"} for row in rows])

    @routes.post("/runs/{run_id}/cancel")
    def cancel(run_id: str, user: User = Depends(shell.require("operator"))) -> Response:
        """Stop a run at its next step."""
        row = runs.request_cancel(shell.context, run_id, actor=user.name, now=shell.now())
        return shell.redirect(f"/runs/{row['id']}", "The run stops at its next step and leaves nothing behind.")

    vote_pages.add(routes, shell)
    return routes


def _list_values(shell: Shell, alias: str, before: int) -> dict[str, Any]:
    query = select(training_runs).order_by(training_runs.c.started_at.desc(), training_runs.c.id.desc()).limit(_PAGE_ROWS + 1)
    if alias:
        query = query.where(training_runs.c.alias == alias)
    if before > 0:
        query = query.where(training_runs.c.started_at < min(before, 2**62))
    with reading(shell.context.database) as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
        _add_results(connection, rows)
        waiting = _waiting(connection)
    older = rows[_PAGE_ROWS - 1]["started_at"] if len(rows) > _PAGE_ROWS else 0
    rows = rows[:_PAGE_ROWS]
    now = shell.now()
    for row in rows:
        row["spark"] = sparkline(row["curve"])
        row["silent"] = row["state"] == runs.RUNNING and now - row["heartbeat_at"] > _SILENT_MS
    return {
        "running": [row for row in rows if row["state"] == runs.RUNNING],
        "ended": [row for row in rows if row["state"] != runs.RUNNING],
        "waiting": waiting,
        "older": older,
        "alias": alias,
        "before": before,
        "headline": list_headline(rows, len(waiting), now),
        "settings": shell.context.settings,
        "share": share,
    }


def list_headline(rows: list[dict[str, Any]], waiting: int, now: int) -> str:
    """The sentence of the list page; `rows` newest first."""
    running = [row for row in rows if row["state"] == runs.RUNNING]
    if running:
        first = running[0]
        rest = f", and {plural(len(running) - 1, 'other')}" if len(running) > 1 else ""
        return f"{first['alias']} is in training: {said_progress(first)}{rest}"
    if waiting:
        return f"{plural(waiting, 'request').capitalize()} for training {'waits' if waiting == 1 else 'wait'} for a worker"
    if not rows:
        return "Nothing has been trained yet"
    last = rows[0]
    if last["state"] == runs.SUCCEEDED:
        return f"Nothing trains now; the last run made {last['label'] or 'a version that was removed'} {relative(last['finished_at'], now)}"
    return f"Nothing trains now; the last run {'failed' if last['state'] == runs.FAILED else 'was cancelled'} {relative(last['finished_at'] or last['started_at'], now)}"


def said_progress(row: dict[str, Any]) -> str:
    """`step 88 of 160, 31 s left`, or the stage."""
    progress = row["progress"] or {}
    stage = progress.get("stage", "loading")
    if stage == "training" and progress.get("steps"):
        left = f", {duration(1000 * progress['eta_s'])} left" if progress.get("eta_s") else ""
        return f"step {number(progress['step'])} of {number(progress['steps'])}{left}"
    if stage == "evaluating" and progress.get("to_answer"):
        return f"{number(progress['answered'])} of {number(progress['to_answer'])} held-out answers compared"
    return str(stage)


def share(progress: dict[str, Any]) -> float:
    """How far the training steps are, 0 to 1."""
    return min(1.0, progress.get("step", 0) / progress["steps"]) if progress.get("steps") else 0.0


def _waiting(connection: Connection) -> list[dict[str, Any]]:
    claimed = select(training_runs.c.id).where(training_runs.c.request_id == training_requests.c.id).exists()
    query = (
        select(training_requests, datasets.c.name, datasets.c.version)
        .join(datasets, datasets.c.digest == training_requests.c.dataset_digest, isouter=True)
        .where(~claimed)
        .order_by(training_requests.c.created_at)
        .limit(20)
    )
    return [dict(row._mapping) for row in connection.execute(query)]


def _add_results(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """`label` and `gate` of the adapter that each run made."""
    digests = [row["adapter_digest"] for row in rows if row["adapter_digest"]]
    made = {row.digest: row for row in connection.execute(select(adapters).where(adapters.c.digest.in_(digests)))}
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
    spots = [f"{width * (step - left) / ((right - left) or 1):.1f} {1 + (height - 2) * (high - loss) / span:.1f}" for step, loss in keep]
    return "M" + "L".join(spots)


def _row(shell: Shell, run_id: str) -> dict[str, Any]:
    with reading(shell.context.database) as connection:
        row = connection.execute(select(training_runs).where(training_runs.c.id == run_id)).first()
    if row is None:
        raise NotFoundError(f"There is no run {clip(run_id, 60)!r}.", hint="`whet train list` prints them.")
    return dict(row._mapping)


def _run_values(shell: Shell, run_id: str) -> dict[str, Any]:
    row = _row(shell, run_id)
    now = shell.now()
    with reading(shell.context.database) as connection:
        _add_results(connection, [row])
        dataset = _mapping(connection, select(datasets).where(datasets.c.digest == row["dataset_digest"]))
        request = _mapping(connection, select(training_requests).where(training_requests.c.id == row["request_id"])) if row["request_id"] else None
        evaluation = _mapping(connection, select(evaluations).where(evaluations.c.run_id == run_id).order_by(evaluations.c.created_at.desc()))
        against = (
            _mapping(connection, select(adapters.c.name, adapters.c.version).where(adapters.c.digest == evaluation["against_digest"])) if evaluation else None
        )
    row["silent"] = row["state"] == runs.RUNNING and now - row["heartbeat_at"] > _SILENT_MS
    elapsed = (row["finished_at"] or now) - row["started_at"]
    curve = row["curve"] or []
    return {
        "run": row,
        "headline": run_headline(row, evaluation, now),
        "progress": row["progress"] or {},
        "share": share(row["progress"] or {}),
        "stages": STAGES,
        "elapsed_ms": elapsed,
        "estimate": row["estimate"] or {},
        "estimated": estimated(row["estimate"] or {}),
        "dataset": dataset,
        "training_request": request,
        "evaluation": evaluation,
        "against": f"{against['name']}@v{against['version']}" if against else "the base",
        "groups": [(title, what, evaluation["metrics"][name]) for name, (title, what) in GROUPS.items() if name in evaluation["metrics"]] if evaluation else [],
        "recipe": [(name, ", ".join(map(str, value)) if isinstance(value, list) else value) for name, value in (row["recipe"] or {}).items()],
        "thresholds": json.dumps(evaluation["thresholds"], indent=1) if evaluation else "",
        "spark": sparkline(curve, 640, 200),
        "first_loss": curve[0][1] if curve else None,
        "last_loss": curve[-1][1] if curve else None,
    }


def estimated(estimate: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, words) of an estimate: its parts of memory, and how far it was from what the run took."""
    found = [(f"Memory, {part}", f"{size / 1e6:,.0f} MB") for part, size in estimate.get("memory", {}).items()]
    error = estimate.get("error", {})
    names = {"seconds": "time", "tokens_per_s": "speed", "peak_memory_bytes": "memory"}
    return found + [(f"Estimate of {names.get(name, name)}", f"{100 * share:+.0f} % of what was measured") for name, share in error.items()]


def run_headline(row: dict[str, Any], evaluation: dict[str, Any] | None, now: int) -> str:
    if row["silent"]:
        return f"The run for {row['alias']} is silent since {relative(row['heartbeat_at'], now).removesuffix(' ago')}: its process may be gone"
    if row["state"] == runs.RUNNING:
        return f"{row['alias']} is in training: {said_progress(row)}"
    if row["state"] == runs.FAILED:
        return f"The run for {row['alias']} failed"
    if row["state"] == runs.CANCELLED:
        return f"The run for {row['alias']} was cancelled" + (f" by {row['cancel_requested_by']}" if row["cancel_requested_by"] else "")
    made = row["label"] or "a version that was removed"
    verdicts = {"pass": f"{made} passed its gate", "fail": f"{made} did not pass its gate", "inconclusive": f"The gate could not decide on {made}"}
    return verdicts.get(evaluation["verdict"], f"The run made {made}") if evaluation else f"The run made {made}; nothing was held out to judge it by"


def _mapping(connection: Connection, query: Any) -> dict[str, Any] | None:
    row = connection.execute(query.limit(1)).first()
    return dict(row._mapping) if row else None


def _judged(shell: Shell, run_id: str) -> dict[str, Any]:
    """The newest evaluation of a run's version that kept its answers. Raises NotFoundError."""
    _row(shell, run_id)
    with reading(shell.context.database) as connection:
        evaluation = _mapping(connection, select(evaluations).where(evaluations.c.run_id == run_id).order_by(evaluations.c.created_at.desc()))
    if evaluation is None or not evaluation["samples_path"]:
        raise NotFoundError("This run kept no answers to compare.", hint="Answers are kept when rows were held out to judge by.")
    return evaluation


def _report_values(shell: Shell, run_id: str) -> dict[str, Any]:
    evaluation = _judged(shell, run_id)
    found = read_report(shell.context, evaluation["samples_path"])
    if found is None:
        raise NotFoundError("This run has no report.", hint="It was judged before there were reports; `whet eval run` makes one.")
    found = with_people(shell.context, evaluation["id"], found)
    return {"run_id": run_id, "evaluation_id": evaluation["id"], "report": found, "held_out": HELD_OUT, "headline": f"Gate: {found['gate']['verdict']}"}


def _sample_values(shell: Shell, run_id: str, show: str) -> dict[str, Any]:
    evaluation = _judged(shell, run_id)
    content = shell.context.store.read_bytes(evaluation["samples_path"]).decode()
    rows = [json.loads(line) for line in content.splitlines() if line.strip()]
    kinds: dict[str, list[dict[str, Any]]] = {"broken": [], "fixed": [], "same": []}
    for row in rows:
        ours, theirs = row["candidate"]["score"]["correct"], row["against"]["score"]["correct"]
        kinds["broken" if ours < theirs else "fixed" if ours > theirs else "same"].append(row)
    chosen = show if show in kinds else "broken"
    return {
        "run_id": run_id,
        "shown": kinds[chosen][:_SAMPLES_SHOWN],
        "counts": {name: len(items) for name, items in kinds.items()},
        "chosen": chosen,
        "headline": f"{plural(len(kinds['fixed']), 'answer').capitalize()} became right, {plural(len(kinds['broken']), 'answer')} became wrong",
    }
