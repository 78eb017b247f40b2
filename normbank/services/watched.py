"""What the listener knows of each PACS, and the jobs it makes: one per series and version.

A series is *settling* while more of it may come, *taken* while its job is
unfinished, *done* afterwards. What it held when it was taken is remembered as
a salted hash; a series that holds something else later is a new version.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import Job, JobKind, PacsPayload
from normbank.entities.pacs import SeenSeries, SettlingSeries
from normbank.queue import JobQueue
from normbank.services.audit import record_event
from normbank.storage.jobs import JobStore
from normbank.storage.watched import SETTLING, TAKEN, WatchedStore

LISTENER = "listener"
RETRIED = ("pacs_unreachable", "series_grew")
"""A job that failed so is made again: the PACS is back, or the series is another one, of
which a PACS that counts no instances would not tell."""


class WatchedSeries:
    """Commit first, then announce.

    Parameters
    ----------
    sessions : makes database sessions
    queue : where committed jobs are announced
    """

    def __init__(self, sessions: sessionmaker[Session], queue: JobQueue) -> None:
        self._sessions = sessions
        self._queue = queue

    def cursor(self, pacs: str) -> int:
        """How far a PACS's list of changes was followed; 0: not at all."""
        with self._sessions.begin() as session:
            return WatchedStore(session, pacs).cursor

    def notice(self, pacs: str, seen: Sequence[SeenSeries], cursor: int = 0) -> None:
        """Write down which series are new or may have changed, and how far was looked.

        Parameters
        ----------
        seen : one that has not changed since is left alone
        cursor : where the next look begins
        """
        with self._sessions.begin() as session:
            store = WatchedStore(session, pacs)
            store.notice(seen)
            store.move_cursor(cursor)

    def settling(self, pacs: str) -> Sequence[SettlingSeries]:
        """Series of which more may come."""
        with self._sessions.begin() as session:
            return WatchedStore(session, pacs).settling()

    def count(self, pacs: str, series: str, instances: int | None) -> None:
        """Write down that a settling series has another number of instances now."""
        with self._sessions.begin() as session:
            store = WatchedStore(session, pacs)
            store.count(store.locked(series), instances)

    def pass_over(self, pacs: str, series: str, reason: str) -> None:
        """A series is not for us; looked at again only when it changes."""
        with self._sessions.begin() as session:
            store = WatchedStore(session, pacs)
            store.finish(store.locked(series), reason)

    def take(self, payload: PacsPayload, instances: Sequence[str]) -> Job | None:
        """Make the job of a series that has settled, once for what it holds.

        Parameters
        ----------
        payload : its `instances` and `seed` are filled in
        instances : SOP instance UIDs that the series has

        Returns
        -------
        None when there was a job for just these instances, or another listener
        was faster
        """
        with self._sessions.begin() as session:
            store = WatchedStore(session, payload.pacs)
            row = store.locked(payload.series)
            if row.state != SETTLING:
                return None
            content = store.hashed(*sorted(instances))
            if content == row.content:
                store.finish(row)
                return None
            filled = PacsPayload.from_json(
                {
                    **payload.to_json(),
                    "instances": len(instances),
                    "seed": f"{row.series_hash}:{content}",
                }
            )
            jobs = JobStore(session)
            job = jobs.add(JobKind.PACS, None, filled.to_json())
            row.state, row.content, row.job_id = TAKEN, content, job.id
            row.instances, row.version = len(instances), row.version + 1
            row.passed_over = None
            record_event(session, LISTENER, "job.submit", job.id, kind=job.kind, domain=None)
        self._queue.enqueue(job)
        return job

    def finish_ended(self, pacs: str) -> None:
        """Forget the UIDs of series whose jobs have ended."""
        with self._sessions.begin() as session:
            WatchedStore(session, pacs).finish_ended(RETRIED)
