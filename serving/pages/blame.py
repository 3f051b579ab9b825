"""Which part was at fault, on a conversation's page: run in the background, shown as a table."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from serving.blame.blame_store import get_verdict
from serving.blame.records import Fault, Report
from serving.blame.report import matrix_rows, name_fault, passage_line, suggest_repair
from serving.blame.run import blame_answer
from serving.blame.searching import open_search
from serving.pages.console_key import console_key
from whet.access import User
from whet.context import Context
from whet.database import error_text, reading
from whet.errors import ConflictError, WhetError
from whet.web.shell import Shell

# At once in one console: each asks the engine one question after the other.
_MOST = 2
_KINDS = {Fault.NONE: "good", Fault.UNKNOWN: "plain"}


class Progress(msgspec.Struct):
    """How far the matrix of one answer is. `error` says why it ended without a verdict."""

    done: int = 0
    total: int = 1
    asked: str = "starting"
    error: str = ""
    is_running: bool = True


class BackgroundRuns:
    """The matrices that this console runs, a thread each; they end with it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._runs: dict[str, Progress] = {}

    def find(self, interaction_id: str) -> Progress | None:
        return self._runs.get(interaction_id)

    def start(self, interaction_id: str, *, key: str, actor: str, now: int) -> None:
        """Start a matrix; one that runs goes on. Raises ConflictError when too many run."""
        with self._lock:
            known = self._runs.get(interaction_id)
            if known is not None and known.is_running:
                return
            running = [name for name, run in self._runs.items() if run.is_running]
            if len(running) >= _MOST:
                raise ConflictError(
                    f"{len(running)} conversations are being looked into already.",
                    hint="Each takes some seconds; try again then.",
                )
            self._runs = {name: self._runs[name] for name in running}  # what ended is stored
            progress = self._runs[interaction_id] = Progress()
        arguments = (interaction_id, progress, key, actor, now)
        threading.Thread(target=self._run, args=arguments, daemon=True).start()

    def _run(self, interaction_id: str, progress: Progress, key: str, actor: str, now: int) -> None:
        def show(done: int, total: int, asked: str) -> None:
            progress.done, progress.total, progress.asked = done, total, asked

        try:
            with open_search(self._context) as search:
                blame_answer(
                    self._context, interaction_id, search, key=key, actor=actor, now=now,
                    progress=show,
                )  # fmt: skip
        except WhetError as error:
            progress.error = str(error)
        except SQLAlchemyError as error:
            progress.error = error_text(self._context.database, error)
        finally:
            progress.is_running = False


def add_blame_routes(routes: APIRouter, shell: Shell) -> BackgroundRuns:
    """Add the button's address and the part of the page that follows it."""
    runs = BackgroundRuns(shell.context)

    @routes.post("/traffic/{interaction_id}/blame")
    def start(interaction_id: str, user: User = Depends(shell.require("reviewer"))) -> Response:
        """Find in the background which part was at fault for an answer."""
        key = console_key(shell.context, shell.now())
        runs.start(interaction_id, key=key, actor=user.name, now=shell.now())
        return shell.redirect(f"/traffic/{interaction_id}#blame")

    @routes.get("/traffic/{interaction_id}/blame")
    def part(request: Request, interaction_id: str) -> Response:
        """Return the part of the page with the progress, then the verdict."""
        values = blame_values(shell, runs, interaction_id)
        response = shell.render(request, "serving/blame.html", blame=values)
        if not values["is_running"]:
            response.headers["x-live"] = "done"
        return response

    return runs


def blame_values(shell: Shell, runs: BackgroundRuns, interaction_id: str) -> dict[str, object]:
    """Return what `serving/blame.html` shows of an answer."""
    run = runs.find(interaction_id)
    with reading(shell.context.database) as connection:
        stored = get_verdict(connection, interaction_id)
    values: dict[str, Any] = {
        "id": interaction_id,
        "run": run,
        "is_running": run is not None and run.is_running,
        "error": run.error if run is not None else "",
        "at": stored.created_at if stored else None,
        "actor": stored.actor if stored else "",
    }
    if stored is None:
        return values
    report = msgspec.convert(stored.report, Report)
    verdict = report.verdict
    return values | {
        "fault": name_fault(verdict.fault, verdict.detail),
        "kind": _KINDS.get(verdict.fault, "attention"),
        "reason": verdict.reason,
        "repair": suggest_repair(verdict.fault),
        "also": [fault.value for fault in verdict.also],
        "notes": verdict.notes,
        "passage": passage_line(report),
        "rows": matrix_rows(report),
    }
