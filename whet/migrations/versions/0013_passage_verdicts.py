"""A review can say what was wrong with the passages of an answer."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("reviews", sa.Column("passage_verdict", sa.String(16), nullable=True))
    op.add_column("reviews", sa.Column("passage_ids", sa.JSON(none_as_null=True), nullable=True))
