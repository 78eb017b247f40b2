"""Which rows point to a stored file, and the locks that keep it there.

Whoever records a file holds it (shared) from the look that it exists to the
commit; whoever deletes it claims it (exclusive) from the look that nobody
points to it to the deletion. So no row ever points to a deleted file.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, func, or_, select, union
from sqlalchemy.orm import Session

from normbank.schema import CaseRow, JobRow, SegmentationRow


class BlobReferences:
    def __init__(self, session: Session) -> None:
        self._session = session

    def hold(self, sha256s: Sequence[str]) -> None:
        """Keep deleters away until the transaction ends."""
        for sha256 in sorted(sha256s):
            self._session.execute(select(func.pg_advisory_xact_lock_shared(_key(sha256))))

    def claim(self, sha256: str) -> None:
        """Keep recorders and other deleters away until the transaction ends."""
        self._session.execute(select(func.pg_advisory_xact_lock(_key(sha256))))

    def exist(self, sha256: str) -> bool:
        """Whether any row points to the file."""
        pointed = or_(
            exists().where(CaseRow.scan_sha256 == sha256),
            exists().where(CaseRow.labels_sha256 == sha256),
            exists().where(SegmentationRow.labels_sha256 == sha256),
            exists().where(JobRow.blobs.contains([sha256])),
        )
        return bool(self._session.scalars(select(pointed)).one())

    def beginning_with(self, prefix: str) -> set[str]:
        """Every file with such a hash that any row points to."""
        of_jobs = select(func.unnest(JobRow.blobs).label("sha256")).subquery()
        columns = (
            CaseRow.scan_sha256,
            CaseRow.labels_sha256,
            SegmentationRow.labels_sha256,
            of_jobs.c.sha256,
        )
        selects = [select(column).where(column.startswith(prefix)) for column in columns]
        return set(self._session.scalars(union(*selects)))


def _key(sha256: str) -> ColumnElement[int]:
    return func.hashtextextended(sha256, 0)
