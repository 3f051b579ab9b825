"""Tables beside the review queue, written by feedback. `whet.tables` has them with all others."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Integer, String, Text

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

review_opinions = define_table(
    "feedback",
    "review_opinions",  # second opinions: whether an answer is right, said without knowing the first
    Column("item_id", String(40), primary_key=True),
    Column("reviewer", String(64), primary_key=True),
    Column("alias", String(64), nullable=False),
    Column("is_right", Boolean, nullable=False),
    Column("labels", JSON, nullable=False),  # [string], what is wrong with it
    Column("seconds", Float),
    instant("created_at"),
)

review_gold = define_table(
    "feedback",
    "review_gold",  # items whose standing decision reviewers are measured by
    Column("item_id", String(40), primary_key=True),
    Column("created_by", String(64), nullable=False),
    instant("created_at"),
)
