"""Tables by which processes tell that they are alive, and how their work ends."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, String, Text

from whet.table_definition import define_table as _table
from whet.table_definition import instant as _at

scheduled_jobs = _table(
    "whet",
    "scheduled_jobs",  # how the last run of each of the scheduler's jobs ended
    Column("name", String(64), primary_key=True),
    Column("every_s", Float, nullable=False),
    _at("finished_at"),
    _at("failing_since", nullable=True),  # first of its failures in a row; null: it succeeds
    Column("error", Text),
)

leases = _table(
    "whet",
    "leases",
    Column("name", String(128), primary_key=True),
    Column("owner", String(128), nullable=False),
    _at("expires_at"),
    Column("token", Integer, nullable=False),  # rises with every change of owner: a fencing token
)
