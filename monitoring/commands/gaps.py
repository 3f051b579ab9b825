"""`whet drift gaps`: subjects of questions that find nothing."""

from __future__ import annotations

import typer

from monitoring.decisions import change_gap
from monitoring.gap_queries import list_gaps
from whet.cli import actor, emit, opened
from whet.clock import now_ms
from whet.database import reading
from whet.registry import alias_filter


def show_gaps(*, alias: str | None, dismiss: str, restore: str, every: bool, as_json: bool) -> None:
    """Subjects of questions that find nothing: what somebody should write a document about."""
    with opened() as context:
        for gap_id, state in ((dismiss, "dismissed"), (restore, "open")):
            if gap_id:
                change_gap(context, gap_id, state, actor=actor(), now=now_ms())
        with reading(context.database) as connection:
            found = list_gaps(connection, alias_filter(connection, alias))
    shown = [gap for gap in found if every or gap.state == "open"]
    if as_json:
        emit([gap.as_json() for gap in shown], True)
        return
    if not shown:
        typer.echo("No gaps: questions that find nothing have no subject in common, or none do.")
        return
    rows = [
        gap.as_json() | {"words": ", ".join(gap.words), "share": f"{100 * gap.share:.1f} %"}
        for gap in shown
    ]
    columns = [
        "id",
        "alias",
        "collection",
        "words",
        "questions",
        "share",
        "recent",
        "first_seen",
        "last_seen",
    ]
    emit(rows, False, columns=[*columns, *(["state"] if every else [])], title="gaps")
