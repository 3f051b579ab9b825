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

review_batches = define_table(
    "feedback",
    "review_batches",  # items that somebody looks after together, by a day
    Column("id", String(40), primary_key=True),
    Column("name", String(120), nullable=False),
    Column("owner", String(64)),  # the person who answers for it
    instant("due_at", nullable=True),
    Column("created_by", String(64), nullable=False),
    instant("created_at"),
)

review_rules = define_table(
    "feedback",
    "review_rules",  # who gets which new items; a rule never changes
    Column("id", String(40), primary_key=True),
    Column("alias", String(64), nullable=False),  # empty: every alias
    Column("reason", String(32), nullable=False),  # empty: every reason
    Column("people", JSON, nullable=False),  # [string], who share them alike
    Column("created_by", String(64), nullable=False),
    instant("created_at"),
    instant("removed_at", nullable=True),
)

review_comments = define_table(
    "feedback",
    "review_comments",  # what reviewers tell each other about an item
    Column("id", String(40), primary_key=True),
    Column("item_id", String(40), nullable=False, index=True),
    Column("author", String(64), nullable=False),
    Column("text", Text, nullable=False),
    instant("created_at"),
    instant("removed_at", nullable=True),
)

review_adjudications = define_table(
    "feedback",
    "review_adjudications",  # who was right where a second opinion differed
    Column("item_id", String(40), primary_key=True),
    Column("second", String(64), primary_key=True),  # the reviewer of the second opinion
    Column("first", String(64), nullable=False),
    Column("verdict", String(8), nullable=False),  # first | second
    Column("decided_by", String(64), nullable=False),
    instant("created_at"),
)
