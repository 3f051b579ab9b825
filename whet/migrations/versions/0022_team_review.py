"""Assignment of review items, batches with owner and day, comments, adjudication, bulk decisions."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.add_column("review_items", sa.Column("assignee", sa.String(64), nullable=True))
    op.add_column("review_items", sa.Column("batch_id", sa.String(40), nullable=True))
    op.create_index(op.f("ix_review_items_batch_id"), "review_items", ["batch_id"])
    op.add_column("reviews", sa.Column("bulk_id", sa.String(40), nullable=True))
    op.create_index(op.f("ix_reviews_bulk_id"), "reviews", ["bulk_id"])
    _create_batches()
    op.create_table(
        "review_comments",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("item_id", sa.String(40), nullable=False),
        sa.Column("author", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_comments")),
    )
    op.create_index(op.f("ix_review_comments_item_id"), "review_comments", ["item_id"])
    op.create_table(
        "review_adjudications",
        sa.Column("item_id", sa.String(40), nullable=False),
        sa.Column("second", sa.String(64), nullable=False),
        sa.Column("first", sa.String(64), nullable=False),
        sa.Column("verdict", sa.String(8), nullable=False),
        sa.Column("decided_by", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", "second", name=op.f("pk_review_adjudications")),
    )


def _create_batches() -> None:
    op.create_table(
        "review_batches",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("owner", sa.String(64), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_batches")),
    )
    op.create_table(
        "review_rules",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("people", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_rules")),
    )
