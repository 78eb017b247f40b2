"""A domain's row, locked for a change."""

from __future__ import annotations

from sqlalchemy.orm import Session

from normbank.errors import ConflictError, NotFoundError
from normbank.schema import DomainRow
from normbank.storage.domains import DomainStore


def locked_domain(session: Session, domain_id: str, revision: int | None = None) -> DomainRow:
    """The domain's row, locked until the transaction ends.

    Raises
    ------
    NotFoundError
        `unknown_domain`.
    ConflictError
        `domain_archived`, or `stale_revision` when `revision` is not the
        current one.
    """
    row = DomainStore(session).locked(domain_id)
    if row is None:
        raise unknown_domain(domain_id)
    if row.archived_at is not None:
        raise ConflictError(f"The domain '{domain_id}' is archived.", code="domain_archived")
    if revision is not None and row.revision != revision:
        raise ConflictError(
            f"The domain '{domain_id}' has changed meanwhile.",
            code="stale_revision",
            facts={"revision": row.revision},
        )
    return row


def unknown_domain(domain_id: str) -> NotFoundError:
    return NotFoundError(f"There is no domain '{domain_id}'.", code="unknown_domain")
