"""Groups of API keys, retries of clients, and why an answer with feedback is not in the review
queue.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("group_name", sa.String(length=64), nullable=True))
    op.execute("UPDATE api_keys SET group_name = id")  # a key alone is its own group
    with op.batch_alter_table("api_keys") as keys:
        keys.alter_column("group_name", existing_type=sa.String(length=64), nullable=False)
    op.add_column("interactions", sa.Column("retry", sa.Integer(), nullable=True))
    op.create_table(
        "review_left_out",
        sa.Column("interaction_id", sa.String(length=40), nullable=False),
        sa.Column("alias", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=24), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("interaction_id", name=op.f("pk_review_left_out")),
    )
