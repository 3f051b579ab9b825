"""What became of the conversations behind an alert, in the queue."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection, select

from whet.tables import alerts, review_items

_IN_WORDS = {"waiting": "waiting for review", "done": "decided", "skipped": "skipped by everybody"}


def alert_title(connection: Connection, alert_id: str) -> str:
    """Return an alert's title; its id where there is no such alert."""
    title = connection.execute(
        select(alerts.c.title).where(alerts.c.id == alert_id)
    ).scalar_one_or_none()
    return title or alert_id


def describe_batch(connection: Connection, alert_id: str, added: int) -> str:
    """Say how many of an alert's conversations were put into the queue, or where they are."""
    if added:
        verb = "conversation was" if added == 1 else "conversations were"
        return f"{added} {verb} put first in the queue."
    detail = connection.execute(
        select(alerts.c.detail).where(alerts.c.id == alert_id)
    ).scalar_one_or_none()
    named = [str(each) for each in (detail or {}).get("interaction_ids") or []]
    states = Counter(
        connection.execute(
            select(review_items.c.state).where(review_items.c.interaction_id.in_(named))
        ).scalars()
    )
    parts = [f"{states[state]} {words}" for state, words in _IN_WORDS.items() if states[state]]
    rest = len(named) - sum(states.values())
    if rest:
        parts.append(f"{rest} without a whole answer to judge")
    return f"Nothing was added. Of the alert's {len(named)} conversations: {', '.join(parts)}."
