"""The schema's history: forwards, backwards, and equal to the models."""

from __future__ import annotations

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
from normbank.storage.database import alembic_config, make_engine, migrate, migrations_at_head


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
    "change", ["UPDATE audit_event SET actor = 'x'", "DELETE FROM audit_event"]
)
def test_the_database_refuses_to_change_the_audit_trail(
    engine: Engine, sessions: sessionmaker[Session], change: str
) -> None:
    Keys(sessions).create("pacs", Role.SEGMENT)
    with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(text(change))
