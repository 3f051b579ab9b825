"""`whet train list`, `show`, `cancel`, `methods`."""

from __future__ import annotations

from training.commands.shown import show_run
from training.recipes.methods import METHODS
from training.store import runs
from training.store.requests import evaluations_of
from training.store.table_rows import RunRow
from whet.cli import actor, emit, opened, out
from whet.clock import now_ms
from whet.database import reading
from whet.registry import alias_filter, list_adapters
from whet.web.filters import relative


def methods(*, as_json: bool) -> None:
    """Every way to train: what it learns, from which rows, and what the engine can do with the
    result.
    """

    rows = [
        {
            "method": each.name,
            "learns": each.learns,
            "rows": each.rows,
            "engine": each.engine,
            "becomes": each.becomes,
            "recipe": f"{each.name}.toml",
            "said": each.said,
        }
        for each in METHODS.values()
    ]
    emit(
        (
            rows
            if as_json
            else [
                {name: row[name] for name in ("method", "learns", "rows", "becomes")}
                for row in rows
            ]
        ),
        as_json,
        title="methods",
    )


def list_runs(*, alias: str, limit: int, as_json: bool) -> None:
    """Runs, newest first."""
    with opened() as context:
        with reading(context.database) as connection:
            rows = runs.newest(connection, alias_filter(connection, alias), limit)
        if as_json:
            emit(
                [{key: value for key, value in row.items() if key != "curve"} for row in rows], True
            )
            return
        now = now_ms()
        emit([_line(row, now) for row in rows], False, title="runs")
        for row in rows:
            if row["state"] == runs.FAILED and row["error"]:
                out.print(f"{row['id']}: {row['error']}", markup=False, soft_wrap=True)


def _line(row: RunRow, now: int) -> dict[str, object]:
    progress = row["progress"]
    return {
        "run": row["id"],
        "alias": row["alias"],
        "state": row["state"],
        "step": f"{progress.get('step', 0)}/{progress.get('steps', '?')}",
        "loss": progress.get("loss"),
        "started": relative(row["started_at"], now),
    }


def show(*, run_id: str, as_json: bool) -> None:
    """Everything about one run: recipe, progress, loss curve, estimate against fact, evaluation."""
    with opened() as context:
        with reading(context.database) as connection:
            row = runs.find(connection, run_id)
            row["evaluations"] = evaluations_of(connection, row["adapter_digest"])
            labels = {each.digest: each.label for each in list_adapters(connection, removed=True)}
        if as_json:
            emit(row, True)
            return
        show_run({**row, "label": labels.get(row["adapter_digest"] or "", "")}, labels, now_ms())


def cancel(*, run_id: str, as_json: bool) -> None:
    """Stop a running run at its next step, or withdraw a request. Nothing of it is stored."""
    with opened() as context:
        row = runs.request_cancel(context, run_id, actor=actor(), now=now_ms())
        state = "cancelled" if row["state"] == runs.CANCELLED else "cancelling"
        emit({"run": row["id"], "state": state}, as_json)
