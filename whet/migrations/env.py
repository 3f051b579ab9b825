"""Alembic's entry: one transaction for the whole upgrade, so a killed migration leaves the old
schema.
"""

from alembic import context

from whet.tables import metadata

engine = context.config.attributes["engine"]

with engine.begin() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=False,
        transactional_ddl=True,
        render_as_batch=True,
    )
    if connection.dialect.name == "postgresql":
        # Several processes start at once; the first migrates, the others wait and find nothing to
        # do.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(823476511)")
    context.run_migrations()
