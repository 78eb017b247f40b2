"""What Alembic runs: the given connection, or the database of the settings."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from normbank.config import get_settings
from normbank.schema import Row
from normbank.storage.database import make_engine
from normbank.storage.patience import MIGRATION


def run_on(connection: Connection) -> None:
    """Move the schema within the connection's transaction."""
    context.configure(
        connection=connection,
        target_metadata=Row.metadata,
        compare_server_default=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def run() -> None:
    """Use the caller's connection, or one of our own (the `alembic` command)."""
    given = context.config.attributes.get("connection")
    if given is not None:
        run_on(given)
        return
    settings = get_settings()
    url = settings.owner_url or settings.database_url
    engine = make_engine(url, pool_size=1, waits=MIGRATION)
    with engine.begin() as connection:
        run_on(connection)
    engine.dispose()


run()
