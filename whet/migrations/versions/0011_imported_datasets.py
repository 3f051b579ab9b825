"""A dataset version can be made of files."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("datasets", sa.Column("imported", sa.JSON(none_as_null=True), nullable=True))
