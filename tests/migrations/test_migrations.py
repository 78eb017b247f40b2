"""The schema's history: forwards, backwards, and equal to the models."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import Role
from normbank.schema import Row
from normbank.services.keys import Keys
from normbank.storage.database import (
    MIGRATION_LOCK,
    alembic_config,
    make_engine,
    migrate,
    migrations_at_head,
)
from normbank.storage.patience import Waits


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory.from_config(alembic_config()).get_heads()) == 1


def test_the_schema_goes_up_down_and_up_again(unmigrated_url: str) -> None:
    engine = make_engine(unmigrated_url)
    assert not migrations_at_head(engine)
    migrate(unmigrated_url)
    assert migrations_at_head(engine)
    assert "domain" in inspect(engine).get_table_names()
    migrate(unmigrated_url, "base")
    assert not migrations_at_head(engine)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    migrate(unmigrated_url)
    migrate(unmigrated_url)
    assert migrations_at_head(engine)
    engine.dispose()


def test_the_models_are_what_the_migrations_made(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Row.metadata) == []


def test_processes_that_migrate_at_once_take_turns(unmigrated_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [unmigrated_url] * 4))
    engine = make_engine(unmigrated_url)
    assert migrations_at_head(engine)
    engine.dispose()


def test_the_alembic_command_uses_the_database_of_the_settings(
    unmigrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from normbank.config import get_settings

    monkeypatch.setenv("NORMBANK_DATABASE_URL", unmigrated_url)
    get_settings.cache_clear()
    try:
        command.upgrade(alembic_config(), "head")
    finally:
        get_settings.cache_clear()
    engine = make_engine(unmigrated_url)
    assert migrations_at_head(engine)
    engine.dispose()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_event SET actor = 'x'",
        "DELETE FROM audit_event",
        "TRUNCATE audit_event",
        "TRUNCATE audit_anchor",
        "DELETE FROM audit_anchor",
    ],
)
def test_the_database_refuses_to_change_the_audit_trail(
    engine: Engine, sessions: sessionmaker[Session], change: str
) -> None:
    Keys(sessions).create("pacs", Role.SEGMENT)
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(text(change))


def test_the_anchor_only_moves_forward(engine: Engine, sessions: sessionmaker[Session]) -> None:
    for _ in range(3):
        Keys(sessions).create("pacs", Role.SEGMENT)
    with pytest.raises(DBAPIError, match="forward"), engine.begin() as connection:
        connection.execute(text("UPDATE audit_anchor SET number = 2"))


def test_an_older_trail_gets_its_anchor_and_its_first_keys_are_marked(unmigrated_url: str) -> None:
    migrate(unmigrated_url, "0001")
    engine = make_engine(unmigrated_url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_event SELECT n, now(), 'a', 'b', 'c', '{}', 'p', 'hash ' || n"
                " FROM generate_series(1, 3) AS n"
            )
        )
        connection.execute(
            text(
                "INSERT INTO api_key (id, name, role, prefix, secret_sha256)"
                " VALUES ('1', 'first admin', 'admin', 'p', ''), ('2', 'ops', 'admin', 'q', '')"
            )
        )
    migrate(unmigrated_url)
    with engine.connect() as connection:
        anchor = connection.execute(text("SELECT number, hash FROM audit_anchor")).one()
        marked = connection.execute(text("SELECT id FROM api_key WHERE bootstrap")).scalars()
        assert tuple(anchor) == (3, "hash 3")
        assert list(marked) == ["1"]
    engine.dispose()


def test_a_migration_is_not_cut_by_the_time_limits_of_the_service(
    unmigrated_url: str,
) -> None:
    """Another process has its turn for longer than a request would wait for a lock."""
    engine = make_engine(unmigrated_url)
    with engine.begin() as connection, ThreadPoolExecutor(1) as pool:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        migrating = pool.submit(migrate, unmigrated_url)
        time.sleep(Waits().lock_s + 1)
        assert not migrating.done()
        connection.rollback()
        migrating.result(30)
    assert migrations_at_head(engine)
    engine.dispose()
