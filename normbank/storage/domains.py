"""Rows of domains."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from normbank.entities import Domain, Page
from normbank.errors import InvalidError
from normbank.schema import CaseRow, DomainRow, VersionRow

SERVED_CHANNEL = "normbank_served"
"""PostgreSQL's channel for ids of domains that another version is served of."""


class DomainStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self,
        domain_id: str,
        name: str,
        match: Mapping[str, Any],
        label_scheme: str,
        structures: Sequence[str],
    ) -> bool:
        """Insert a domain; False when the id is taken."""
        statement = (
            insert(DomainRow)
            .values(
                id=domain_id,
                name=name,
                match=dict(match),
                label_scheme=label_scheme,
                structures=list(structures),
            )
            .on_conflict_do_nothing()
            .returning(DomainRow.id)
        )
        return self._session.execute(statement).first() is not None

    def locked(self, domain_id: str) -> DomainRow | None:
        """The row, locked until the transaction ends."""
        return self._session.get(
            DomainRow, domain_id, with_for_update={"key_share": True}, populate_existing=True
        )

    def touch(self, row: DomainRow, **changes: Any) -> None:
        """Change a locked row; its revision grows."""
        for column, value in changes.items():
            setattr(row, column, value)
        row.revision += 1
        row.updated_at = self._session.scalars(select(func.now())).one()
        self._session.flush()

    def announce(self, domain_id: str) -> None:
        """Tell every listener, once this transaction is done, that another version is served."""
        self._session.execute(select(func.pg_notify(SERVED_CHANNEL, domain_id)))

    def archive(self, row: DomainRow) -> None:
        self.touch(row, archived_at=self._session.scalars(select(func.now())).one())

    def get(self, domain_id: str) -> Domain | None:
        row = self._session.execute(_domains().where(DomainRow.id == domain_id)).first()
        return None if row is None else _domain(*row)

    def get_known(self, domain_id: str) -> Domain:
        """A domain that this transaction has seen already."""
        return _domain(*self._session.execute(_domains().where(DomainRow.id == domain_id)).one())

    def page(self, cursor: str | None, limit: int, include_archived: bool) -> Page[Domain]:
        """Domains by id, from after the cursor."""
        statement = _domains().order_by(DomainRow.id).limit(limit + 1)
        if not include_archived:
            statement = statement.where(DomainRow.archived_at.is_(None))
        if cursor is not None:
            statement = statement.where(DomainRow.id > _decoded(cursor))
        domains = tuple(_domain(*row) for row in self._session.execute(statement))
        items = domains[:limit]
        return Page(items, _encoded(items[-1].id) if len(domains) > limit else None)


def _domains() -> Select[DomainRow, int, str | None]:
    count = (
        select(func.count())
        .select_from(CaseRow)
        .where(CaseRow.domain_id == DomainRow.id)
        .correlate(DomainRow)
        .scalar_subquery()
    )
    served = (VersionRow.domain_id == DomainRow.id) & (
        VersionRow.number == DomainRow.active_version
    )
    return (
        select(DomainRow, count, VersionRow.backbone)
        .select_from(DomainRow)
        .outerjoin(VersionRow, served)
    )


def _domain(row: DomainRow, case_count: int, backbone: str | None) -> Domain:
    return Domain(
        id=row.id,
        name=row.name,
        match=row.match,
        label_scheme=row.label_scheme,
        structures=tuple(row.structures),
        active_version=row.active_version,
        revision=row.revision,
        archived=row.archived_at is not None,
        case_count=case_count,
        created_at=row.created_at,
        updated_at=row.updated_at,
        backbone=backbone,
    )


def _encoded(domain_id: str) -> str:
    return base64.urlsafe_b64encode(domain_id.encode()).decode().rstrip("=")


def _decoded(cursor: str) -> str:
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise InvalidError("This cursor is not one of ours.", code="bad_cursor") from error
    if not text.isprintable():
        raise InvalidError("This cursor is not one of ours.", code="bad_cursor")
    return text
