"""Who did what: an append-only trail whose events are chained by hashes."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import AuditEvent
from normbank.storage.audit import AuditStore


class Audit:
    """The audit trail; see `record_event` for how it grows."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def newest(self, limit: int = 100) -> tuple[AuditEvent, ...]:
        """The newest events, newest first."""
        with self._sessions() as session:
            return AuditStore(session).newest(limit)

    def first_broken(self) -> int | None:
        """Number of the first event whose hash does not check; None: all do.

        The chain shows a changed, removed or inserted event. It cannot show
        that events were cut off at its end; compare the newest hash with one
        that was written down elsewhere for that.
        """
        with self._sessions() as session:
            return AuditStore(session).first_broken()


def record_event(session: Session, actor: str, action: str, subject: str, **detail: object) -> None:
    """Append to the audit trail; call it last, it serialises the writers."""
    AuditStore(session).append(actor, action, subject, detail)
