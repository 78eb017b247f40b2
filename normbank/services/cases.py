"""The labelled cases that a domain learns from."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import Case, JobKind, NewCase
from normbank.errors import ConflictError, NotFoundError
from normbank.services.audit import record_event
from normbank.services.files import StoredFiles
from normbank.services.locking import locked_domain, unknown_domain
from normbank.storage.cases import CaseStore
from normbank.storage.domains import DomainStore
from normbank.storage.jobs import JobStore


class Cases:
    """Labelled scans of every domain.

    Parameters
    ----------
    sessions : makes database sessions
    files : where scans and labels lie
    """

    def __init__(self, sessions: sessionmaker[Session], files: StoredFiles) -> None:
        self._sessions = sessions
        self._files = files

    def add(
        self, domain_id: str, cases: Sequence[NewCase], *, actor: str = "system"
    ) -> tuple[Case, ...]:
        """Add cases to a domain, all or none.

        Returns
        -------
        the new cases, in the given order

        Raises
        ------
        NotFoundError
            `unknown_domain`, `unknown_blob`.
        ConflictError
            `case_exists` when the domain has the scan already: the same head
            in the training and in the validation half would be no test.
        """
        with self._sessions.begin() as session:
            row = locked_domain(session, domain_id)
            added = self.add_to(session, domain_id, cases)
            DomainStore(session).touch(row)
            record_event(
                session, actor, "domain.add_cases", domain_id, cases=[case.id for case in added]
            )
            return added

    def of(self, domain_id: str) -> tuple[Case, ...]:
        """A domain's cases, oldest first; NotFoundError `unknown_domain`."""
        with self._sessions() as session:
            if DomainStore(session).get(domain_id) is None:
                raise unknown_domain(domain_id)
            return CaseStore(session).of(domain_id)

    def get(self, domain_id: str, case_id: str) -> Case:
        """One case; NotFoundError `unknown_domain`, `unknown_case`."""
        with self._sessions() as session:
            if DomainStore(session).get(domain_id) is None:
                raise unknown_domain(domain_id)
            case = CaseStore(session).get(domain_id, case_id)
        if case is None:
            raise unknown_case()
        return case

    def erase(self, domain_id: str, case_id: str, *, actor: str = "system") -> None:
        """Forget a case and its files; versions that have learnt from it stay.

        Raises
        ------
        NotFoundError
            `unknown_domain`, `unknown_case`.
        ConflictError
            `domain_archived`; `job_in_flight` while an adaptation may read it.
        """
        with self._sessions.begin() as session:
            row = locked_domain(session, domain_id)
            case = CaseStore(session).get(domain_id, case_id)
            if case is None:
                raise unknown_case()
            if JobStore(session).has_active(domain_id, JobKind.ADAPT):
                raise ConflictError(
                    f"An adaptation of '{domain_id}' is in flight.", code="job_in_flight"
                )
            CaseStore(session).remove(case_id)
            DomainStore(session).touch(row)
            record_event(session, actor, "domain.erase_case", domain_id, case=case_id)
        self._files.discard([case.scan_sha256, case.labels_sha256])

    def add_to(
        self, session: Session, domain_id: str, cases: Sequence[NewCase]
    ) -> tuple[Case, ...]:
        """Add cases to a locked domain, within a transaction; raises as `add`."""
        self._files.hold(session, (s for c in cases for s in (c.scan_sha256, c.labels_sha256)))
        try:
            return CaseStore(session).add(domain_id, cases)
        except IntegrityError as error:
            raise ConflictError(
                f"The domain '{domain_id}' has one of these scans already.", code="case_exists"
            ) from error


def unknown_case() -> NotFoundError:
    return NotFoundError("The domain has no such case.", code="unknown_case")
