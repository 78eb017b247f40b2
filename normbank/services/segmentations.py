"""What was answered, how fast, and how long it is kept."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import DomainState, Segmentation, SegmentationSummary, Traffic
from normbank.errors import NotFoundError
from normbank.services.files import StoredFiles
from normbank.storage.segmentations import SegmentationStore


class Segmentations:
    """Segmentations and errors of the recent past.

    Parameters
    ----------
    sessions : makes database sessions
    files : where labels lie
    """

    def __init__(self, sessions: sessionmaker[Session], files: StoredFiles) -> None:
        self._sessions = sessions
        self._files = files

    def record(
        self,
        state: DomainState,
        *,
        labels_sha256: str,
        summary: SegmentationSummary,
        latency_s: float,
        retention_s: float,
        job_id: str | None = None,
    ) -> Segmentation:
        """Write down one answer; its labels already lie in the blob store.

        Parameters
        ----------
        state : the version that answered
        latency_s : from the request's (or job's) start to the labels, seconds
        retention_s : how long the labels can be fetched, seconds
        job_id : of an asynchronous request; a second call for the same job
            returns the first answer

        Raises
        ------
        NotFoundError
            `unknown_blob`.
        """
        with self._sessions.begin() as session:
            self._files.hold(session, [labels_sha256])
            return SegmentationStore(session).add(
                state, labels_sha256, summary, latency_s, retention_s, job_id
            )

    def get(self, segmentation_id: str) -> Segmentation:
        """One answer; NotFoundError `unknown_segmentation`.

        After the retention `labels_sha256` is None.
        """
        with self._sessions() as session:
            segmentation = SegmentationStore(session).get(segmentation_id)
        if segmentation is None:
            raise NotFoundError("There is no such segmentation.", code="unknown_segmentation")
        return segmentation

    def of_job(self, job_id: str) -> Segmentation | None:
        """The answer that a job has recorded; None where it has not yet."""
        with self._sessions() as session:
            return SegmentationStore(session).of_job(job_id)

    def record_error(self, domain_id: str | None, code: str) -> None:
        """Count a refused or failed request; the domain need not exist."""
        with self._sessions.begin() as session:
            SegmentationStore(session).add_error(domain_id, code)

    def traffic(self, domain_id: str, window_s: float = 86_400, newest: int = 100) -> Traffic:
        """How a domain was used in the last `window_s` seconds.

        Returns
        -------
        with `volumes_mm3` of the `newest` answers, oldest first, each
        `{"at": ISO 8601, "version": n, "volumes_mm3": {…}}`
        """
        with self._sessions() as session:
            return SegmentationStore(session).traffic(domain_id, window_s, newest)

    def expire(self, limit: int = 1000) -> int:
        """Delete labels past their retention and scans of finished jobs.

        A file that another row points to stays.

        Returns
        -------
        how many files were deleted
        """
        with self._sessions.begin() as session:
            store = SegmentationStore(session)
            dropped = [*store.drop_expired(limit), *store.drop_finished_inputs(limit)]
        return self._files.discard(dropped)
