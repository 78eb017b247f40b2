"""Who did what: an append-only trail whose events are chained by hashes."""

from __future__ import annotations

import logging

from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import AuditEvent, AuditHead
from normbank.storage.audit import AuditStore

log = logging.getLogger(__name__)


class Audit:
    """The audit trail; see `record_event` for how it grows."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def newest(self, limit: int = 100) -> tuple[AuditEvent, ...]:
        """The newest events, newest first."""
        with self._sessions() as session:
            return AuditStore(session).newest(limit)

    def head(self) -> AuditHead | None:
        """Number and hash of the newest event there ever was; None before the first."""
        with self._sessions() as session:
            return AuditStore(session).head()

    def first_broken(self) -> int | None:
        """Number of the first event whose hash does not check; None: all do.

        The chain shows a changed, removed or inserted event. It cannot show
        that events were cut off at its end; `fault` can.
        """
        with self._sessions() as session:
            return AuditStore(session).first_broken()

    def fault(self, known: AuditHead | None = None) -> str:
        """What is wrong with the trail, in words; empty: nothing.

        Parameters
        ----------
        known : a head of this trail that was written down elsewhere (a log, a
            metric); finds also what somebody has hidden who may change every table
        """
        with self._sessions() as session:
            store = AuditStore(session)
            broken = store.first_broken()
            if broken is not None:
                return f"event {broken} is not what was written, or one before it is missing"
            anchor = store.anchor()
            if anchor is None and store.newest(1):
                return "the anchor of the newest event is missing"
            return _missing(store, anchor, "its anchor") or _missing(store, known, "the head given")


def _missing(store: AuditStore, head: AuditHead | None, source: str) -> str:
    """What a head shows to be missing or other than it was."""
    if head is None:
        return ""
    stored = store.hash_of(head.number)
    if stored is None:
        newest = store.newest(1)
        last = newest[0].number if newest else 0
        return f"events {last + 1} to {head.number} are missing; {source} knows them"
    if not stored.startswith(head.hash):
        return f"event {head.number} is not the one that {source} knows"
    return ""


def record_event(session: Session, actor: str, action: str, subject: str, **detail: object) -> None:
    """Append to the audit trail; call it last, it serialises the writers.

    The log names the new head once it is committed, so that what happens to
    the tables can be held against it (`normbank audit verify --head`).
    """
    head = AuditStore(session).append(actor, action, subject, detail)

    def tell(_: Session) -> None:
        log.info("audit head", extra={"head": str(head)})

    event.listen(session, "after_commit", tell, once=True)
