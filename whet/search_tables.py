"""The tables of Traffic's search: what is indexed of each interaction, and saved views."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import TSVECTOR

from whet.table_definition import define_table as _table
from whet.table_definition import instant

# On SQLite, triggers keep the FTS5 table `interaction_words` like the column `words`; on PostgreSQL
# the column has a GIN index. Both are made by a migration: metadata cannot say them.
FULL_TEXT_TABLE = "interaction_words"
FULL_TEXT_INDEX = "ix_interaction_search_words"

interaction_search = _table(
    "serving",
    "interaction_search",
    # created_at * 16 and a number for those of the same ms: newest last, and the FTS5 table's rowid
    Column(
        "number",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("interaction_id", String(40), nullable=False, unique=True),
    # What lists are sorted by
    Column("ttft_ms", Float),
    Column("duration_ms", Float),
    Column("completion_tokens", Integer),
    Column("is_failed", Boolean, nullable=False),
    # Hashes of the turns before the question, and of all turns with the answer: the next turn of
    # the same thread has the second as its first. Null: no turns before, no answer.
    Column("turns_before", String(16)),
    Column("turns_after", String(16)),
    # Words of question, answer and error, and tokens of the filters' values
    Column("words", Text().with_variant(TSVECTOR, "postgresql"), nullable=False),
    Index(None, "turns_before"),
    Index(None, "turns_after"),
)

saved_views = _table(
    "serving",
    "saved_views",
    Column("id", String(40), primary_key=True),
    Column("name", String(80), nullable=False),
    Column("query", String(2000), nullable=False),  # of the address, without `?`
    Column("owner", String(64), nullable=False),
    Column("is_shared", Boolean, nullable=False),
    instant("created_at"),
    UniqueConstraint("owner", "name"),
)
