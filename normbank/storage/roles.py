"""Roles of PostgreSQL: the owner of the tables, and the one that the service works as.

The owner migrates. The service's role owns nothing: it adds to the audit
trail and reads it, but can neither change nor empty it, nor switch off the
triggers that guard it.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from normbank.errors import InvalidError
from normbank.schema import Row
from normbank.storage.database import MIGRATION_LOCK, make_engine
from normbank.storage.patience import MIGRATION

log = logging.getLogger(__name__)

READ = "SELECT"
APPEND = "SELECT, INSERT"
CHANGE = "SELECT, INSERT, UPDATE, DELETE"
PRIVILEGES = {"alembic_version": READ, "audit_anchor": READ, "audit_event": APPEND}
"""Of the service's role, where they are not `CHANGE`."""

SUPERUSER = (
    "WARNING: the service works as a superuser of PostgreSQL, who can rewrite the audit trail; "
    "see NORMBANK_OWNER_URL"
)
OWNER = (
    "WARNING: the service works as the owner of its tables, who can rewrite the audit trail; "
    "see NORMBANK_OWNER_URL"
)


def equip_service_role(owner_url: str, service_url: str) -> None:
    """Give the service's role what it needs and no more; make it where that is allowed.

    Parameters
    ----------
    owner_url : of the role that owns the migrated tables
    service_url : the same database as the service's role, with its password

    Raises
    ------
    InvalidError
        `unknown_role`, when it does not exist and the owner may make none.
    """
    target = make_url(service_url)
    name, owner = target.username or "", make_url(owner_url).username
    if name == owner:
        return
    engine = make_engine(owner_url, pool_size=1, waits=MIGRATION)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            if _makes_roles(connection):
                ensure_role(connection, name, target.password)
            elif not _has_role(connection, name):
                raise InvalidError(
                    f"PostgreSQL has no role '{name}', and the owner may make none.",
                    code="unknown_role",
                )
            _grant(connection, name)
    finally:
        engine.dispose()


def ensure_role(connection: Connection, name: str, password: str | None) -> None:
    """Make a role that may log in and nothing else; where it is there, set its password."""
    verb = "ALTER" if _has_role(connection, name) else "CREATE"
    connection.exec_driver_sql(f"{verb} ROLE {quoted(connection, name)} LOGIN")
    if password:
        set_password(connection, name, password)


def set_password(connection: Connection, name: str, password: str) -> None:
    """Set a role's password; only its SCRAM verifier leaves this process."""
    pgconn = connection.connection.driver_connection.pgconn  # type: ignore[union-attr]
    verifier = pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
    connection.exec_driver_sql(
        f"ALTER ROLE {quoted(connection, name)} PASSWORD '{verifier.decode()}'"
    )


def quoted(connection: Connection, name: str) -> str:
    """A name as SQL takes it."""
    return connection.dialect.identifier_preparer.quote_identifier(name)


def _has_role(connection: Connection, name: str) -> bool:
    query = text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :name)")
    return bool(connection.execute(query, {"name": name}).scalar_one())


def _makes_roles(connection: Connection) -> bool:
    query = text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    return bool(connection.execute(query).scalar_one())


def _grant(connection: Connection, role: str) -> None:
    """Take everything from the role and give it what it needs; others see both at once."""
    name = quoted(connection, role)
    schema = connection.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {name}")
    connection.exec_driver_sql(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {name}")
    for table in (*(table.name for table in Row.metadata.sorted_tables), "alembic_version"):
        allowed = PRIVILEGES.get(table, CHANGE)
        connection.exec_driver_sql(f"GRANT {allowed} ON {schema}.{table} TO {name}")


def role_warning(database: Engine) -> str:
    """What is wrong with the role that this pool connects as; empty: nothing."""
    query = text(
        "SELECT rolsuper, pg_has_role((SELECT relowner FROM pg_class "
        "WHERE oid = to_regclass('audit_event')), 'USAGE') "
        "FROM pg_roles WHERE rolname = current_user"
    )
    with database.connect() as connection:
        superuser, owner = connection.execute(query).one()
    if superuser:
        return SUPERUSER
    return OWNER if owner else ""


def log_role_warning(database: Engine) -> None:
    """Log what is wrong with the role, once at a start; without a database nothing is said."""
    try:
        warning = role_warning(database)
    except SQLAlchemyError:
        return
    if warning:
        log.warning(warning)
