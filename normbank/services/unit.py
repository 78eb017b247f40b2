"""What the parts of the registry share: sessions, blobs and their safety."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from normbank.errors import ConflictError, NotFoundError
from normbank.schema import DomainRow
from normbank.storage.audit import AuditStore
from normbank.storage.blobs import BlobStore
from normbank.storage.domains import DomainStore
from normbank.storage.references import BlobReferences

log = logging.getLogger(__name__)

PUT_ATTEMPTS = 3
UNKNOWN_BLOB = "unknown_blob"
T = TypeVar("T")


class RegistryPart:
    """One part of the registry.

    Parameters
    ----------
    sessions : makes database sessions
    blobs : where scans and labels lie
    """

    def __init__(self, sessions: sessionmaker[Session], blobs: BlobStore) -> None:
        self._sessions = sessions
        self._blobs = blobs

    def _hold_blobs(self, session: Session, sha256s: Iterable[str]) -> None:
        hold_blobs(session, self._blobs, sha256s)

    def keep_blobs(
        self, sha256s: Iterable[str], put: Callable[[], object], record: Callable[[], T]
    ) -> T:
        """Store files and record them; where that fails, none of them is left behind.

        Parameters
        ----------
        sha256s : of the files that `put` stores
        record : raises NotFoundError `unknown_blob` where one of them was
            deleted meanwhile, by a request that failed with the same file;
            then it is put once more

        Returns
        -------
        what `record` returned
        """
        wanted = sorted(set(sha256s))
        try:
            for attempts_left in reversed(range(PUT_ATTEMPTS)):
                put()
                try:
                    return record()
                except NotFoundError as error:
                    if error.code != UNKNOWN_BLOB or not attempts_left:
                        raise
            raise AssertionError("the last attempt returns or raises")
        except BaseException:
            self._discard_quietly(wanted)
            raise

    def _discard_quietly(self, sha256s: Iterable[str]) -> None:
        """Discard after an error, which must not be hidden by another one."""
        try:
            self.discard_blobs(sha256s)
        except (SQLAlchemyError, OSError) as error:
            log.warning("files were left behind", extra={"error": type(error).__name__})

    def discard_blobs(self, sha256s: Iterable[str]) -> int:
        """Delete those of the blobs that no row points to.

        Returns
        -------
        how many were deleted
        """
        deleted = 0
        for sha256 in sorted(set(sha256s)):
            with self._sessions.begin() as session:
                references = BlobReferences(session)
                references.claim(sha256)
                if not references.exist(sha256) and self._blobs.exists(sha256):
                    self._blobs.delete(sha256)
                    deleted += 1
        return deleted


def hold_blobs(session: Session, blobs: BlobStore, sha256s: Iterable[str]) -> None:
    """Make sure the blobs are there, and stay, until the transaction ends.

    Raises
    ------
    NotFoundError
        `unknown_blob`, when one was deleted before it was recorded.
    """
    wanted = sorted(set(sha256s))
    BlobReferences(session).hold(wanted)
    for sha256 in wanted:
        if not blobs.exists(sha256):
            raise NotFoundError("A file is no longer stored; send it again.", code=UNKNOWN_BLOB)


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


def audit(session: Session, actor: str, action: str, subject: str, **detail: object) -> None:
    """Append to the audit trail; call it last, it serialises the writers."""
    AuditStore(session).append(actor, action, subject, detail)
