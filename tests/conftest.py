"""Real services for every test package, started when first asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from cli.local.postgres import EmbeddedPostgres
from cli.local.valkey import EmbeddedValkey
from normbank.config import Settings
from normbank.storage.blobs import BlobStore
from normbank.storage.database import make_engine, make_sessions, migrate
from normbank.wiring import CoreServices
from tests.support.services import (
    ListQueue,
    empty_database,
    empty_tables,
    postgres_server,
    valkey_server,
)

os.environ.setdefault("NORMBANK_BACKEND", "eager")  # tests of the others name them


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The run's PostgreSQL."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_engine(postgres: EmbeddedPostgres) -> Iterator[Engine]:
    """A migrated database, shared; take `engine` or `database_url` instead."""
    with empty_database(postgres) as url:
        migrate(url)
        engine = make_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def engine(migrated_engine: Engine) -> Engine:
    """A migrated database without rows."""
    empty_tables(migrated_engine)
    return migrated_engine


@pytest.fixture
def database_url(engine: Engine) -> str:
    """URL of a migrated database without rows."""
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture
def unmigrated_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """URL of a database of one's own, without tables."""
    with empty_database(postgres) as url:
        yield url


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    return make_sessions(engine)


@pytest.fixture
def queue() -> ListQueue:
    """Remembers what was announced."""
    return ListQueue()


@pytest.fixture
def core(engine: Engine, blobs: BlobStore, queue: ListQueue) -> CoreServices:
    """Every service over the test's database."""
    return CoreServices.of(Settings(), engine, blobs, queue)


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    """The run's Valkey."""
    with valkey_server() as server:
        yield server


@pytest.fixture
def redis_url(valkey: EmbeddedValkey) -> str:
    """URL of an empty broker."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """An empty blob store."""
    return BlobStore(tmp_path / "blobs")
