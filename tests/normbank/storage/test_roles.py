"""The role that the service works as: what it may do, and what it may not."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from cli.local.postgres import EmbeddedPostgres
from normbank.config import Settings
from normbank.entities import Recipe, Role
from normbank.errors import InvalidError
from normbank.storage.blobs import BlobStore
from normbank.storage.database import make_engine, migrate, migrations_at_head
from normbank.storage.roles import (
    OWNER,
    SUPERUSER,
    equip_service_role,
    log_role_warning,
    role_warning,
)
from normbank.wiring import CoreServices
from tests.support.api import new_state
from tests.support.services import ListQueue


@pytest.fixture
def service_url(unmigrated_url: str, postgres: EmbeddedPostgres) -> Iterator[str]:
    """The database as a role that was made for it."""
    name = f"service_{uuid.uuid4().hex[:8]}"
    target = make_url(unmigrated_url).set(username=name, password="it's a 100% secret:/@")
    url = target.render_as_string(hide_password=False)
    migrate(unmigrated_url)
    equip_service_role(unmigrated_url, url)
    equip_service_role(unmigrated_url, url)
    yield url
    engine = make_engine(unmigrated_url)
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()


@pytest.fixture
def service(service_url: str) -> Iterator[Engine]:
    engine = make_engine(service_url)
    yield engine
    engine.dispose()


def test_it_can_do_all_that_the_services_do(service: Engine, blobs: BlobStore) -> None:
    core = CoreServices.of(Settings(), service, blobs, ListQueue())
    key, secret = core.keys.create("pacs", Role.SEGMENT)
    assert core.keys.authenticate(secret) is not None
    core.keys.revoke(key.id)
    core.domains.create("drawn", "drawn", {}, "freesurfer", ())
    core.versions.publish("drawn", state=new_state(1.0), promote=True)
    job, _ = core.jobs.submit_adapt("drawn", Recipe(), min_cases=0)
    assert core.leases.claim(job.id, "worker") is not None
    core.leases.fail(job.id, 1, "internal", "as told")
    assert migrations_at_head(service)
    assert core.audit.fault() == ""
    core.domains.archive("drawn", core.domains.get("drawn").revision)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET actor = 'nobody'",
        "DELETE FROM audit_event",
        "TRUNCATE audit_event",
        "ALTER TABLE audit_event DISABLE TRIGGER USER",
        "DROP TABLE audit_event",
        "UPDATE audit_anchor SET number = 0",
        "INSERT INTO audit_anchor (number, hash) VALUES (1, '')",
        "DELETE FROM audit_anchor",
        "TRUNCATE segmentation CASCADE",
        "CREATE TABLE mine ()",
        "SET session_replication_role = replica",
        "SELECT pg_read_file('/etc/passwd')",
        "UPDATE alembic_version SET version_num = 'x'",
    ],
)
def test_it_can_neither_change_the_trail_nor_the_tables(service: Engine, statement: str) -> None:
    with pytest.raises(DBAPIError) as caught, service.begin() as connection:
        connection.execute(text(statement))
    assert caught.value.orig is not None
    assert caught.value.orig.sqlstate == "42501"  # type: ignore[attr-defined]  # not permitted


def test_a_temporary_table_cannot_stand_in_for_the_anchor(service: Engine) -> None:
    core_events = "INSERT INTO audit_event VALUES (1, now(), 'a', 'b', 'c', '{}', 'p', 'h')"
    with service.begin() as connection:
        connection.execute(
            text(
                "CREATE TEMPORARY TABLE audit_anchor"
                " (single bool PRIMARY KEY DEFAULT true, number bigint, hash text)"
            )
        )
        connection.execute(text(core_events))
        anchored = connection.execute(text("SELECT number FROM public.audit_anchor"))
        assert anchored.scalar_one() == 1


def test_only_a_superuser_and_the_owner_are_warned_of(
    service: Engine,
    unmigrated_url: str,
    postgres: EmbeddedPostgres,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert role_warning(service) == ""
    superuser, owner = make_engine(unmigrated_url), make_engine(postgres.owner_url)
    migrate(postgres.owner_url)
    assert role_warning(superuser) == SUPERUSER
    assert role_warning(owner) == OWNER
    for engine in (service, superuser, owner):
        log_role_warning(engine)
    assert [record.message for record in caplog.records] == [SUPERUSER, OWNER]
    migrate(postgres.owner_url, "base")
    superuser.dispose()
    owner.dispose()


def test_an_owner_that_may_make_no_role_says_which_is_missing(postgres: EmbeddedPostgres) -> None:
    missing = make_url(postgres.url).set(username="nobody_yet").render_as_string(False)
    with pytest.raises(InvalidError, match="no role 'nobody_yet'"):
        equip_service_role(postgres.owner_url, missing)


def test_a_migration_as_the_services_role_is_refused(service_url: str) -> None:
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        migrate(service_url, "base")
