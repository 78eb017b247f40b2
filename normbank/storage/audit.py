"""The audit trail: rows that are only appended, each sealing the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from normbank.entities import AuditEvent, AuditHead
from normbank.schema import AnchorRow, AuditRow

CHAIN_LOCK = 0x61756469
START = "0" * 64
CHECK_ROWS = 1000


class AuditStore:
    def __init__(self, session: Session) -> None:
        self._session = session

    def append(self, actor: str, action: str, subject: str, detail: Mapping[str, Any]) -> AuditHead:
        """Add the next link. Writers take turns until their transactions end.

        It continues from the anchor where events behind it were cut off, so
        that the gap stays.
        """
        self._session.execute(select(func.pg_advisory_xact_lock(CHAIN_LOCK)))
        last = self.head()
        number, previous = (last.number, last.hash) if last else (0, START)
        now = self._session.scalars(select(func.clock_timestamp())).one()
        row = AuditRow(
            number=number + 1,
            at=now,
            actor=actor,
            action=action,
            subject=subject,
            detail=dict(detail),
            previous=previous,
        )
        row.hash = seal(row)
        self._session.add(row)
        self._session.flush()
        return AuditHead(row.number, row.hash)

    def head(self) -> AuditHead | None:
        """The newest event by the trail or by its anchor, whichever is further; None: none yet."""
        heads = union_all(
            select(AuditRow.number, AuditRow.hash).order_by(AuditRow.number.desc()).limit(1),
            select(AnchorRow.number, AnchorRow.hash),
        ).subquery()
        row = self._session.execute(select(heads).order_by(heads.c.number.desc()).limit(1)).first()
        return None if row is None else AuditHead(row.number, row.hash)

    def anchor(self) -> AuditHead | None:
        """What the anchor says is the newest event; None before the first."""
        row = self._session.scalars(select(AnchorRow)).one_or_none()
        return None if row is None else AuditHead(row.number, row.hash)

    def hash_of(self, number: int) -> str | None:
        """An event's hash; None when there is no such event."""
        return self._session.scalar(select(AuditRow.hash).where(AuditRow.number == number))

    def newest(self, limit: int) -> tuple[AuditEvent, ...]:
        statement = select(AuditRow).order_by(AuditRow.number.desc()).limit(limit)
        return tuple(_event(row) for row in self._session.scalars(statement))

    def first_broken(self) -> int | None:
        """Number of the first row that does not check; None when all do."""
        previous, expected = START, 1
        while rows := self._from(expected):
            for row in rows:
                if (row.number, row.previous, row.hash) != (expected, previous, seal(row)):
                    return row.number
                previous, expected = row.hash, expected + 1
        return None

    def _from(self, number: int) -> Sequence[AuditRow]:
        """The next rows from a number on."""
        rows = select(AuditRow).where(AuditRow.number >= number).order_by(AuditRow.number)
        return self._session.scalars(rows.limit(CHECK_ROWS)).all()


def seal(row: AuditRow) -> str:
    """sha256 over a row's fields and the hash of the row before."""
    fields = [
        row.number,
        _stamp(row.at),
        row.actor,
        row.action,
        row.subject,
        row.detail,
        row.previous,
    ]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _stamp(moment: datetime) -> int:
    """Microseconds since 1970, whatever the session's time zone."""
    return round(moment.timestamp() * 1_000_000)


def _event(row: AuditRow) -> AuditEvent:
    return AuditEvent(
        number=row.number,
        at=row.at,
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        detail=row.detail,
        previous=row.previous,
        hash=row.hash,
    )
