"""Tables beside the review queue, written by feedback. `whet.tables` has them with all others."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String, Text

from whet.table_definition import define_table, instant

review_guidelines = define_table(
    "feedback",
    "review_guidelines",  # what reviewers of an alias go by; a version never changes
    Column("alias", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),  # from 1
    Column("text", Text, nullable=False),  # Markdown; empty: there is none any more
    Column("created_by", String(64), nullable=False),
    instant("created_at"),
)
