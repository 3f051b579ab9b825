"""A training request whose run was cancelled or failed can be followed by another on the same rows.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("training_requests") as requests:
        requests.add_column(
            sa.Column("attempt", sa.Integer(), nullable=False, server_default="1")
        )
        requests.drop_constraint("uq_training_requests_alias_dataset_digest", type_="unique")
        requests.create_unique_constraint(
            op.f("uq_training_requests_alias_dataset_digest_attempt"),
            ["alias", "dataset_digest", "attempt"],
        )
