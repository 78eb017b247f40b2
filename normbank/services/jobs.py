"""Jobs as their clients see them: submitted, looked at, cancelled."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import Job, JobKind, JobState, PacsPayload, Recipe, SegmentPayload
from normbank.entities.jobs import AUTO
from normbank.errors import BusyError, ConflictError, InvalidError, NotFoundError, TooFewCasesError
from normbank.pacs.config import PacsFile, is_uid
from normbank.queue import JobQueue
from normbank.services.audit import record_event
from normbank.services.files import StoredFiles
from normbank.services.locking import locked_domain
from normbank.storage.cases import CaseStore
from normbank.storage.jobs import JobStore

FULL_RETRY_S = 30


class Jobs:
    """Adaptations and asynchronous segmentations. Commit first, then announce.

    Parameters
    ----------
    sessions : makes database sessions
    queue : where committed jobs are announced
    files : where the scans of submitted jobs lie
    queue_jobs : segmentations that may be unfinished
    read_pacs : the PACS file, when somebody asks for one
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        queue: JobQueue,
        files: StoredFiles,
        *,
        queue_jobs: int,
        read_pacs: Callable[[], PacsFile] = PacsFile,
    ) -> None:
        self._sessions = sessions
        self._queue = queue
        self._files = files
        self._queue_jobs = queue_jobs
        self._read_pacs = read_pacs

    def get(self, job_id: str) -> Job:
        """One job; NotFoundError `unknown_job`."""
        with self._sessions() as session:
            job = JobStore(session).get(job_id)
        if job is None:
            raise unknown_job()
        return job

    def counts(self) -> dict[tuple[JobKind, JobState], int]:
        """How many unfinished jobs there are, by kind and state."""
        with self._sessions() as session:
            return JobStore(session).counts()

    def cancel(self, job_id: str, *, actor: str = "system") -> Job:
        """Cancel a queued job at once; ask a running one to stop.

        Raises
        ------
        NotFoundError
            `unknown_job`.
        ConflictError
            `job_finished`.
        """
        with self._sessions.begin() as session:
            store = JobStore(session)
            row = store.locked(job_id)
            if row is None:
                raise unknown_job()
            if JobState(row.state).finished:
                raise ConflictError("The job has finished already.", code="job_finished")
            if row.state == JobState.QUEUED:
                store.finish(row, JobState.CANCELLED)
            else:
                row.cancel_requested = True
            record_event(session, actor, "job.cancel", job_id)
            return store.get_known(job_id)

    def submit_adapt(
        self,
        domain_id: str,
        recipe: Recipe,
        *,
        min_cases: int = 2,
        idempotency: tuple[str, str] | None = None,
        actor: str = "system",
    ) -> tuple[Job, bool]:
        """Queue an adaptation.

        Parameters
        ----------
        min_cases : fewer labelled cases are refused
        idempotency : the client's key and a fingerprint of its request; keys
            are the actor's own and live for a day
        actor : who asks

        Returns
        -------
        the job, and whether it is the replay of an earlier request

        Raises
        ------
        NotFoundError
            `unknown_domain`.
        ConflictError
            `domain_archived`, `adaptation_in_flight`.
        TooFewCasesError
            With fewer than `min_cases` cases.
        InvalidError
            `idempotency_mismatch`: the key came with another request.
        """
        with self._sessions.begin() as session:
            store = JobStore(session)
            replay = self._replayed(store, actor, idempotency)
            if replay is not None:
                return replay, True
            locked_domain(session, domain_id)
            count = CaseStore(session).count(domain_id)
            if count < min_cases:
                raise TooFewCasesError(
                    f"'{domain_id}' has {count} labelled cases, an adaptation needs {min_cases}.",
                    facts={"cases": count, "needed": min_cases},
                )
            if store.has_active(domain_id, JobKind.ADAPT):
                raise ConflictError(
                    f"An adaptation of '{domain_id}' is in flight.", code="adaptation_in_flight"
                )
            job = store.add(JobKind.ADAPT, domain_id, recipe.to_json())
            if idempotency is not None:
                store.bind_key(actor, idempotency[0], job.id)
            record_event(session, actor, "job.submit", job.id, kind=job.kind, domain=domain_id)
        self._queue.enqueue(job)
        return job, False

    def _replayed(
        self, store: JobStore, actor: str, idempotency: tuple[str, str] | None
    ) -> Job | None:
        """The job an earlier request with this key made; takes the key if new.

        A second request at the same moment waits here until the first one's
        transaction ends.
        """
        if idempotency is None:
            return None
        key, fingerprint = idempotency
        earlier = store.take_key(actor, key, fingerprint)
        if earlier is None:
            return None
        if earlier.fingerprint != fingerprint:
            raise InvalidError(
                "This Idempotency-Key came with another request.", code="idempotency_mismatch"
            )
        job = store.get(earlier.job_id) if earlier.job_id else None
        if job is None:
            raise ConflictError(
                "A request with this Idempotency-Key is in flight.", code="idempotency_in_flight"
            )
        return job

    def submit_segment(
        self,
        payload: SegmentPayload,
        *,
        domain_id: str | None = None,
        actor: str = "system",
    ) -> Job:
        """Queue a segmentation.

        Parameters
        ----------
        payload : what to do; its scan is stored, and kept until the job has
            finished, then `Segmentations.expire` deletes it
        domain_id : the domain that will answer, when it is known

        Raises
        ------
        NotFoundError
            `unknown_blob`, when a file was deleted before it was recorded.
        BusyError
            `queue_full`.
        """
        blobs = [payload.scan_sha256] if payload.scan_sha256 else []
        with self._sessions.begin() as session:
            self._check_room(session)
            self._files.hold(session, blobs)
            job = JobStore(session).add(JobKind.SEGMENT, domain_id, payload.to_json(), blobs)
            record_event(session, actor, "job.submit", job.id, kind=job.kind, domain=domain_id)
        self._queue.enqueue(job)
        return job

    def submit_pacs(self, payload: PacsPayload, *, actor: str = "system") -> Job:
        """Queue the segmentation of a series that a PACS has.

        Parameters
        ----------
        payload : what to do; its UIDs are dropped when the job has finished
        actor : who asks

        Raises
        ------
        NotFoundError
            `unknown_pacs`, `unknown_domain`.
        InvalidError
            `bad_uid`; `bad_pacs_file`, where the file cannot be used.
        ConflictError
            `domain_archived`, `domain_not_ready`.
        BusyError
            `queue_full`.
        """
        self._read_pacs().get(payload.pacs)
        for name, uid in (("study", payload.study), ("series", payload.series)):
            if not is_uid(uid):
                raise InvalidError(
                    f"'{name}' is no UID: digits and single dots, at most 64.", code="bad_uid"
                )
        domain_id = None if payload.domain == AUTO else payload.domain
        with self._sessions.begin() as session:
            self._check_room(session, JobKind.PACS)
            if domain_id and locked_domain(session, domain_id).active_version is None:
                raise ConflictError(
                    f"'{domain_id}' has no version that is served.", code="domain_not_ready"
                )
            job = JobStore(session).add(JobKind.PACS, domain_id, payload.to_json())
            record_event(session, actor, "job.submit", job.id, kind=job.kind, domain=domain_id)
        self._queue.enqueue(job)
        return job

    def check_room(self) -> None:
        """Raise BusyError `queue_full` while no more segmentations are taken."""
        with self._sessions() as session:
            self._check_room(session)

    def _check_room(self, session: Session, of_kind: JobKind = JobKind.SEGMENT) -> None:
        # Not locked: requests at the same moment may pass the limit by a few.
        counts = JobStore(session).counts()
        unfinished = sum(n for (kind, _), n in counts.items() if kind is of_kind)
        if unfinished >= self._queue_jobs:
            raise BusyError(
                "Too many segmentations wait already.",
                retry_after_s=FULL_RETRY_S,
                code="queue_full",
            )


def unknown_job() -> NotFoundError:
    return NotFoundError("There is no such job.", code="unknown_job")
