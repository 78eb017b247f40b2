"""Connections to PostgreSQL, and its schema's version."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.orm import Session, sessionmaker

# Beside this package, in the repository as in an installed wheel.
MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
MIGRATION_LOCK = 0x6E6F726D
CONNECT_TIMEOUT_S = 5


def make_engine(url: str, *, pool_size: int = 10) -> Engine:
    """Connect to PostgreSQL through psycopg 3, lazily.

    Parameters
    ----------
    url : `postgresql://…` or `postgresql+psycopg://…`
    pool_size : connections kept; as many again under load
    """
    target = make_url(url)
    if target.drivername in ("postgres", "postgresql"):
        target = target.set(drivername="postgresql+psycopg")
    return create_engine(
        target,
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=pool_size,
        json_serializer=dump_json,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "normbank",
            "options": "-c timezone=UTC",
        },
    )


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
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Bring the schema to a revision, in one transaction.

    Processes that start together take turns; all but the first find nothing
    to do.
    """
    engine = make_engine(url, pool_size=1)
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
    heads = set(ScriptDirectory.from_config(alembic_config()).get_heads())
    with engine.connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads()) == heads
