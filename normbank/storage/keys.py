"""Rows of API keys."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from normbank.entities import ApiKey, Role
from normbank.schema import KeyRow

ADMIN_LOCK = 0x6B657973

USABLE = (
    KeyRow.revoked_at.is_(None),
    or_(KeyRow.expires_at.is_(None), KeyRow.expires_at > func.now()),
)


class KeyStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def take_turns(self) -> None:
        """Let nobody else make or end an admin key until this transaction has ended."""
        self._session.execute(select(func.pg_advisory_xact_lock(ADMIN_LOCK)))

    def add(
        self,
        name: str,
        role: Role,
        prefix: str,
        secret_sha256: str,
        expires_at: datetime | None,
        *,
        bootstrap: bool = False,
    ) -> ApiKey:
        row = KeyRow(
            id=uuid.uuid4().hex,
            name=name,
            role=Role(role).value,
            prefix=prefix,
            secret_sha256=secret_sha256,
            expires_at=expires_at,
            bootstrap=bootstrap,
        )
        self._session.add(row)
        self._session.flush()
        self._session.refresh(row)
        return _key(row)

    def usable(self, prefix: str) -> tuple[ApiKey, str] | None:
        """A key that is neither revoked nor expired, and its secret's hash."""
        return self.with_prefix(prefix, *USABLE)

    def with_prefix(
        self, prefix: str, *conditions: ColumnElement[bool]
    ) -> tuple[ApiKey, str] | None:
        """A key that fits the conditions, and its secret's hash."""
        statement = select(KeyRow).where(KeyRow.prefix == prefix, *conditions)
        row = self._session.scalars(statement).one_or_none()
        return None if row is None else (_key(row), row.secret_sha256)

    def usable_admins(self) -> tuple[ApiKey, ...]:
        """Admin keys that are neither revoked nor expired."""
        statement = select(KeyRow).where(KeyRow.role == Role.ADMIN.value, *USABLE)
        return tuple(_key(row) for row in self._session.scalars(statement))

    def note_use(self, key_id: str, every_s: float) -> None:
        """Note that a key was used, at most once in `every_s` seconds; waits for nobody."""
        late = or_(
            KeyRow.last_used_at.is_(None),
            KeyRow.last_used_at < func.now() - timedelta(seconds=every_s),
        )
        free = select(KeyRow.id).where(KeyRow.id == key_id, late)
        self._session.execute(
            update(KeyRow)
            .where(KeyRow.id.in_(free.with_for_update(skip_locked=True)))
            .values(last_used_at=func.now())
        )

    def all(self) -> tuple[ApiKey, ...]:
        """Every key, oldest first."""
        statement = select(KeyRow).order_by(KeyRow.created_at, KeyRow.id)
        return tuple(_key(row) for row in self._session.scalars(statement))

    def revoke(self, key_id: str) -> ApiKey | None:
        """Note when a key was revoked first; None when there is no such key."""
        statement = (
            update(KeyRow)
            .where(KeyRow.id == key_id)
            .values(revoked_at=func.coalesce(KeyRow.revoked_at, func.now()))
            .returning(KeyRow)
        )
        row = self._session.scalars(statement).one_or_none()
        return None if row is None else _key(row)


def _key(row: KeyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        prefix=row.prefix,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
        bootstrap=row.bootstrap,
    )
