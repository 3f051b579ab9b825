"""A key may be allowed to write documents."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("may_write_documents", sa.Boolean(), nullable=True))
