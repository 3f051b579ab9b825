"""Who looks after an alert, until when it is snoozed, and what people did about it."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("alerts", sa.Column("owner", sa.String(64), nullable=True))
    op.add_column("alerts", sa.Column("snoozed_until", sa.BigInteger(), nullable=True))
    op.create_table(
        "incident_actions",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("alert_id", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(64), nullable=True),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("state_before", sa.String(16), nullable=False),
        sa.Column("owner_before", sa.String(64), nullable=True),
        sa.Column("snoozed_until_before", sa.BigInteger(), nullable=True),
        sa.Column("changed_at_before", sa.BigInteger(), nullable=False),
        sa.Column("changed_by_before", sa.String(64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("undone_at", sa.BigInteger(), nullable=True),
        sa.Column("undone_by", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident_actions")),
    )
    op.create_index(
        op.f("ix_incident_actions_alert_id_created_at"),
        "incident_actions",
        ["alert_id", "created_at"],
    )
