"""One job from claim to end, with a lease that is kept alive on the side."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from normbank.entities import Job
from normbank.errors import (
    JobCancelledError,
    LeaseLostError,
    NormbankError,
    PostponedError,
    is_disk_full,
)
from normbank.services.leases import Leases
from worker.context import WorkerContext

log = logging.getLogger(__name__)

BEATS_PER_LEASE = 6
TELL_EVERY_S = 0.5

OnProgress = Callable[[float, str], None]
"""(progress 0 to 1, step in words); raises when the job shall end."""

Task = Callable[[Job, WorkerContext, OnProgress], Mapping[str, Any]]


def run(job_id: str, work: Task, context: WorkerContext) -> None:
    """Do a job if it is to be done, and write down how it ended.

    A late or doubled message finds a row that is leased or finished, and does
    nothing.
    """
    leases = context.core.leases
    job = leases.claim(job_id, context.name)
    if job is None:
        return
    lease = Lease(leases, job, context.core.settings.lease_s)
    try:
        with lease:
            result = work(job, context, lease.on_progress)
        leases.succeed(job.id, job.attempt, result)
    except LeaseLostError:
        log.warning("another attempt owns the job", extra={"job": job.id})
    except JobCancelledError:
        leases.mark_cancelled(job.id, job.attempt)
    except PostponedError as error:
        leases.postpone(job.id, job.attempt, error.delay_s, str(error))
    except NormbankError as error:
        extra = {"job": job.id, "kind": job.kind, "code": error.code}
        log.warning("a job has failed", extra=extra)
        leases.fail(job.id, job.attempt, error.code, str(error))
    except SoftTimeLimitExceeded:
        leases.fail(job.id, job.attempt, "time_limit", "The job took longer than allowed.")
    except Exception as error:
        # Anything else is our own fault: the row must say that the job has
        # failed, and the log why.
        log.exception("a job failed", extra={"job": job.id})
        if is_disk_full(error):
            leases.fail(job.id, job.attempt, "disk_full", "The worker's disk is full.")
        else:
            leases.fail(job.id, job.attempt, "internal", "The job failed; the log says why.")


class Lease:
    """Keeps a job's row alive from a thread, and carries progress to it.

    Parameters
    ----------
    leases : where the row is kept alive
    job : as claimed
    lease_s : a silence this long loses the job
    """

    def __init__(self, leases: Leases, job: Job, lease_s: float) -> None:
        self._leases = leases
        self._job = job
        self._pause_s = lease_s / BEATS_PER_LEASE
        self._progress, self._step = job.progress, "starting"
        self._started = monotonic()
        self._told = 0.0
        self._ended = threading.Event()
        self._verdict: NormbankError | None = None
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def on_progress(self, progress: float, step: str) -> None:
        """Say how far the job is.

        Raises
        ------
        JobCancelledError, LeaseLostError
            When it shall not go on.
        """
        self._progress, self._step = progress, step
        if self._verdict is not None:
            raise self._verdict
        if monotonic() - self._told >= TELL_EVERY_S:
            self._tell_if_possible()

    def _tell_if_possible(self) -> None:
        try:
            self._tell()
        except (JobCancelledError, LeaseLostError):
            raise
        except Exception:
            # The database may be away for a moment; the lease outlives several
            # missed beats, so the next one may still save the job.
            log.exception("a heartbeat failed", extra={"job": self._job.id})

    def _tell(self) -> None:
        self._told = monotonic()
        spent_s = self._told - self._started
        eta_s = spent_s * (1 - self._progress) / self._progress if self._progress > 0.02 else None
        self._leases.heartbeat(
            self._job.id,
            self._job.attempt,
            progress=self._progress,
            step=self._step,
            eta_s=eta_s,
        )

    def _beat(self) -> None:
        while not self._ended.wait(self._pause_s):
            try:
                self._tell_if_possible()
            except (JobCancelledError, LeaseLostError) as verdict:
                self._verdict = verdict
                return
