"""Scans, labels and answers in the blob store, and which of them may be deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from normbank.errors import NotFoundError
from normbank.storage.blobs import BlobStore
from normbank.storage.integrity import IntegrityStore
from normbank.storage.references import BlobReferences

log = logging.getLogger(__name__)

PUT_ATTEMPTS = 3
UNKNOWN_BLOB = "unknown_blob"
T = TypeVar("T")


class StoredFiles:
    """Files that rows point to: there as long as one does, and no longer.

    Parameters
    ----------
    sessions : makes database sessions
    blobs : where the files lie
    """

    def __init__(self, sessions: sessionmaker[Session], blobs: BlobStore) -> None:
        self._sessions = sessions
        self._blobs = blobs

    def hold(self, session: Session, sha256s: Iterable[str]) -> None:
        """Make sure the files are there, and stay, until the transaction ends.

        Raises
        ------
        NotFoundError
            `unknown_blob`, when one was deleted before it was recorded.
        """
        hashes = sorted(set(sha256s))
        BlobReferences(session).hold(hashes)
        for sha256 in hashes:
            if not self._blobs.exists(sha256):
                raise NotFoundError("A file is no longer stored; send it again.", code=UNKNOWN_BLOB)

    def keep(self, sha256s: Iterable[str], put: Callable[[], object], record: Callable[[], T]) -> T:
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
        hashes = sorted(set(sha256s))
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
            self._discard_quietly(hashes)
            raise

    def _discard_quietly(self, sha256s: Iterable[str]) -> None:
        """Discard after an error, which must not be hidden by another one."""
        try:
            self.discard(sha256s)
        except (SQLAlchemyError, OSError) as error:
            log.warning("files were left behind", extra={"error": type(error).__name__})

    def discard(self, sha256s: Iterable[str]) -> int:
        """Delete those of the files that no row points to.

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
                    IntegrityStore(session).drop_corrupt(sha256)
                    deleted += 1
        return deleted
