"""Connections to PostgreSQL, and its schema's version."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from normbank.storage.patience import MIGRATION, Waits

if TYPE_CHECKING:
    from alembic.config import Config

# Beside this package, in the repository as in an installed wheel.
MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
MIGRATION_LOCK = 0x6E6F726D
FRESH = "fresh"

LINE: dict[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""How a connection over a network that was cut is noticed (libpq's names and units)."""


def make_engine(url: str, *, pool_size: int = 10, waits: Waits | None = None) -> Engine:
    """Connect to PostgreSQL through psycopg 3, lazily.

    Parameters
    ----------
    url : `postgresql://…` or `postgresql+psycopg://…`
    pool_size : connections kept; as many again under load
    waits : how long anything may take; the defaults of the settings when left out
    """
    chosen = waits or Waits()
    target = make_url(url)
    if target.drivername in ("postgres", "postgresql"):
        target = target.set(drivername="postgresql+psycopg")
    engine = create_engine(
        target,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=chosen.pool_s,
        json_serializer=dump_json,
        connect_args={**LINE, "application_name": "normbank", "options": _options(chosen)},
    )
    _bound(engine, chosen)
    return engine


def _options(waits: Waits) -> str:
    """What the server ends by itself."""
    limits_s = {
        "lock_timeout": waits.lock_s,
        "statement_timeout": waits.statement_s,
        "idle_in_transaction_session_timeout": waits.idle_s,
    }
    limits = [f"-c {name}={round(1000 * seconds)}" for name, seconds in limits_s.items()]
    return " ".join(["-c timezone=UTC", *limits])


def _bound(engine: Engine, waits: Waits) -> None:
    """Have this side give up too, and ask a pooled connection for a sign of life."""
    # Imported here because a machine that only computes has no psycopg.
    from normbank.storage.bounded import connect_bounded, ping

    @event.listens_for(engine, "do_connect")
    def connect(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        return connect_bounded(*arguments, answer_s=waits.answer_s, **options)

    @event.listens_for(engine, "connect")
    def note(_: Any, record: ConnectionPoolEntry) -> None:
        record.info[FRESH] = True

    @event.listens_for(engine, "checkout")
    def check(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
        if not record.info.pop(FRESH, False):
            ping(connection)


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    """What services open their transactions with."""
    return sessionmaker(engine, expire_on_commit=False)


def dump_json(value: Any) -> str:
    """JSON text for a column; a number that is none becomes null."""
    return json.dumps(without_nan(value), allow_nan=False)


def without_nan(value: Any) -> Any:
    """A copy in which null stands for every NaN and infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return value


def alembic_config() -> Config:
    """Alembic's configuration, wherever this package lies."""
    from alembic.config import Config  # by every process that starts, used by few

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Bring the schema to a revision, in one transaction.

    Processes that start together take turns; all but the first find nothing
    to do. No time limit cuts it.
    """
    from alembic import command

    engine = make_engine(url, pool_size=1, waits=MIGRATION)
    config = alembic_config()
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            move = command.downgrade if revision == "base" else command.upgrade
            move(config, revision)
    finally:
        engine.dispose()


def migrations_at_head(engine: Engine) -> bool:
    """Whether the schema is the one this code was written for."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    heads = set(ScriptDirectory.from_config(alembic_config()).get_heads())
    with engine.connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads()) == heads
