"""The table of what people did about incidents. `whet.tables` has it with all others."""

from __future__ import annotations

from sqlalchemy import Column, Index, String, Text

from whet.table_definition import define_table, instant

incident_actions = define_table(
    "monitoring",
    "incident_actions",  # what people did about an alert, and what stood before, for undo
    Column("id", String(40), primary_key=True),
    Column("alert_id", String(40), nullable=False),
    Column("actor", String(64), nullable=False),
    # acknowledged | resolved | expected | assigned | snoozed | note
    Column("action", String(16), nullable=False),
    Column("text", Text, nullable=False),  # the note, or the reason; may be empty
    Column("owner", String(64)),  # of `assigned`; null: nobody
    instant("until", nullable=True),  # of `snoozed`; null: it ended
    # The alert before the action.
    Column("state_before", String(16), nullable=False),
    Column("owner_before", String(64)),
    instant("snoozed_until_before", nullable=True),
    instant("changed_at_before"),
    Column("changed_by_before", String(64)),
    instant("created_at"),
    instant("undone_at", nullable=True),
    Column("undone_by", String(64)),
    Index(None, "alert_id", "created_at"),
)
