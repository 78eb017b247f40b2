"""Jobs at work: leased, finished, and taken back from silent workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from normbank.config import Settings
from normbank.entities import Job, JobState
from normbank.errors import JobCancelledError, LeaseLostError
from normbank.queue import JobQueue
from normbank.schema import JobRow
from normbank.storage.jobs import JobStore

WORKER_LOST = "worker_lost"


class Leases:
    """Which worker owns a running job, and for how long. Commit first, then announce.

    Parameters
    ----------
    sessions : makes database sessions
    queue : where jobs are announced again
    settings : how long a worker may be silent, and how many of them a job may lose
    announce_s : a queued job is announced again after this time, seconds
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        queue: JobQueue,
        settings: Settings,
        *,
        announce_s: float = 30.0,
    ) -> None:
        self._sessions = sessions
        self._queue = queue
        self._lease_s = settings.lease_s
        self._max_attempts = settings.max_attempts
        self._announce_s = announce_s

    def claim(self, job_id: str, worker: str) -> Job | None:
        """Take a job for `worker`: queued to running, one more attempt.

        Returns
        -------
        None when there is nothing to do: no such job, finished, cancelled,
        leased by someone else, or out of attempts (it fails `worker_lost`)
        """
        with self._sessions.begin() as session:
            store = JobStore(session)
            row = store.locked(job_id)
            if row is None or not store.is_free(row) or not self._may_go_on(store, row):
                return None
            return store.start(row, worker, self._lease_s)

    def _may_go_on(self, store: JobStore, row: JobRow) -> bool:
        """End a free job that was cancelled or has used up its attempts."""
        if row.cancel_requested:
            store.finish(row, JobState.CANCELLED)
        elif (lost := row.attempt - row.postponements) >= self._max_attempts:
            store.finish(
                row,
                JobState.FAILED,
                code=WORKER_LOST,
                detail=f"The worker was lost in each of {lost} attempts.",
            )
        else:
            return True
        return False

    def heartbeat(
        self,
        job_id: str,
        attempt: int,
        *,
        progress: float | None = None,
        step: str | None = None,
        eta_s: float | None = None,
    ) -> None:
        """Prolong the lease, and tell how far the job is.

        Parameters
        ----------
        progress : 0 to 1
        step : what it does now, in words
        eta_s : estimated seconds to the end

        Raises
        ------
        JobCancelledError
            When somebody asked to stop it.
        LeaseLostError
            When another attempt owns the job now, or it is finished.
        """
        with self._sessions.begin() as session:
            columns = {"progress": progress, "step": step, "eta_s": eta_s}
            cancel = JobStore(session).prolong(job_id, attempt, self._lease_s, columns)
        if cancel is None:
            raise lease_lost()
        if cancel:
            raise JobCancelledError("The job was cancelled.")

    def succeed(self, job_id: str, attempt: int, result: Mapping[str, Any]) -> Job:
        """Finish with a result; LeaseLostError when the attempt is not the owner."""
        return self._finish(job_id, attempt, JobState.SUCCEEDED, result=result)

    def fail(self, job_id: str, attempt: int, code: str, detail: str) -> Job:
        """Finish with a reason; LeaseLostError when the attempt is not the owner."""
        return self._finish(job_id, attempt, JobState.FAILED, code=code, detail=detail)

    def mark_cancelled(self, job_id: str, attempt: int) -> Job:
        """Finish as cancelled; LeaseLostError when the attempt is not the owner."""
        return self._finish(job_id, attempt, JobState.CANCELLED)

    def postpone(self, job_id: str, attempt: int, delay_s: float, step: str) -> None:
        """Give a running job back to the queue, to be tried again after `delay_s` seconds.

        The attempt does not count among those that may be lost. A sweep
        announces the job when its time has come.

        Raises
        ------
        LeaseLostError
            When the attempt is not the owner.
        """
        with self._sessions.begin() as session:
            store = JobStore(session)
            row = store.locked(job_id)
            if row is None or row.attempt != attempt or row.state != JobState.RUNNING:
                raise lease_lost()
            store.postpone(row, delay_s, step)

    def remember(self, job_id: str, attempt: int, news: Mapping[str, Any]) -> None:
        """Add to a running job's payload what its next attempt should know.

        Raises
        ------
        LeaseLostError
            When the attempt is not the owner.
        """
        with self._sessions.begin() as session:
            if not JobStore(session).remember(job_id, attempt, news):
                raise lease_lost()

    def _finish(self, job_id: str, attempt: int, state: JobState, **outcome: Any) -> Job:
        with self._sessions.begin() as session:
            store = JobStore(session)
            row = store.locked(job_id)
            if row is None or row.attempt != attempt or row.state != JobState.RUNNING:
                raise lease_lost()
            store.finish(row, state, **outcome)
            return store.get_known(job_id)

    def sweep(self) -> list[str]:
        """Take jobs back from silent workers and announce what waits unheard.

        Safe with any number of sweepers at once: each row is one sweeper's.

        Returns
        -------
        ids of the jobs that were announced
        """
        with self._sessions.begin() as session:
            store = JobStore(session)
            lost = [row for row in store.locked_lost() if self._may_go_on(store, row)]
            unheard = store.locked_unheard(self._announce_s)
            announced = [store.announce_again(row) for row in (*lost, *unheard)]
        for job in announced:
            self._queue.enqueue(job)
        return [job.id for job in announced]


def lease_lost() -> LeaseLostError:
    return LeaseLostError("Another attempt owns this job now.")
