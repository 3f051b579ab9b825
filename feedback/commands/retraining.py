"""`whet datasets retraining`: what the policy sees, and what it would decide."""

from __future__ import annotations

from feedback import retraining
from whet.cli import emit, opened
from whet.clock import now_ms
from whet.database import reading
from whet.registry import alias_filter, known_aliases


def show(*, alias: str, as_json: bool) -> None:
    """What the retraining policy sees of each alias now, and what it would decide."""
    with opened() as context:
        with reading(context.database) as connection:
            chosen = alias_filter(connection, alias)
            names = [chosen] if chosen else known_aliases(connection)
        found = [retraining.as_json(context, name, now_ms()) for name in names]
        if as_json:
            emit(found, True)
            return
        rows = [
            {
                "alias": row["alias"],
                "state": row["decision"]["code"],
                "new": row["state"]["new_examples"],
                "sentence": row["decision"]["reason"],
            }
            for row in found
        ]
        emit(rows, False, title="aliases")
