"""Votes of people who compare answers blind, and what they come to."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "answer_votes",
        sa.Column("evaluation_id", sa.String(length=40), nullable=False),
        sa.Column("row_id", sa.Text(), nullable=False),
        sa.Column("voter", sa.String(length=64), nullable=False),
        sa.Column("choice", sa.String(length=16), nullable=False),
        sa.Column("places", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("evaluation_id", "row_id", "voter", name=op.f("pk_answer_votes")),
    )
    op.add_column("evaluations", sa.Column("people", sa.JSON(none_as_null=True), nullable=True))
