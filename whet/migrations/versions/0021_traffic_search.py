"""The full-text index of the interaction log, and saved views of Traffic.

Rows that are there already are indexed by the scheduler, in batches.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0021"
down_revision = "0020"

# Words arrive normalised and parted by spaces, see `serving.search_index.tokens`
_TOKENIZER = "unicode61 remove_diacritics 0 categories ''L* M* N* Co'' tokenchars ''=''"
_SQLITE = (
    "CREATE VIRTUAL TABLE interaction_words USING fts5("
    "words, content='interaction_search', content_rowid='number', columnsize=0,"
    f" tokenize='{_TOKENIZER}')",
    "CREATE TRIGGER interaction_search_insert AFTER INSERT ON interaction_search BEGIN"
    " INSERT INTO interaction_words (rowid, words) VALUES (new.number, new.words); END",
    "CREATE TRIGGER interaction_search_delete AFTER DELETE ON interaction_search BEGIN"
    " INSERT INTO interaction_words (interaction_words, rowid, words)"
    " VALUES ('delete', old.number, old.words); END",
)


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.create_table(
        "interaction_search",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("interaction_id", sa.String(40), nullable=False),
        sa.Column("ttft_ms", sa.Float()),
        sa.Column("duration_ms", sa.Float()),
        sa.Column("completion_tokens", sa.Integer()),
        sa.Column("is_failed", sa.Boolean(), nullable=False),
        sa.Column("turns_before", sa.String(16)),
        sa.Column("turns_after", sa.String(16)),
        sa.Column("words", sa.Text().with_variant(TSVECTOR(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_interaction_search")),
        sa.UniqueConstraint("interaction_id", name=op.f("uq_interaction_search_interaction_id")),
    )
    for name in ("turns_before", "turns_after"):
        op.create_index(op.f(f"ix_interaction_search_{name}"), "interaction_search", [name])
    if dialect == "postgresql":
        op.create_index(
            op.f("ix_interaction_search_words"),
            "interaction_search",
            ["words"],
            postgresql_using="gin",
        )
    else:
        for statement in _SQLITE:
            op.execute(statement)
    op.create_table(
        "saved_views",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("query", sa.String(2000), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("is_shared", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_saved_views")),
        sa.UniqueConstraint("owner", "name", name=op.f("uq_saved_views_owner_name")),
    )
