"""A domain's states: publish, promote, roll back, quarantine and back."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from sqlalchemy.orm import Session, sessionmaker

from normbank.entities import Domain, DomainState, JobState, NewState, Promotion
from normbank.errors import ConflictError, InvalidError, LeaseLostError, NotFoundError
from normbank.schema import DomainRow
from normbank.services.audit import record_event
from normbank.services.locking import locked_domain, unknown_domain
from normbank.storage.domains import DomainStore
from normbank.storage.jobs import JobStore
from normbank.storage.versions import VersionStore


class AnyVersion(Enum):
    """The type of `ANY_VERSION`: whatever is active may be replaced."""

    ANY = "any"


ANY_VERSION = AnyVersion.ANY


class Versions:
    """Immutable versions, and which of them is served."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def of(self, domain_id: str) -> tuple[DomainState, ...]:
        """Every version, oldest first; NotFoundError `unknown_domain`."""
        with self._sessions() as session:
            if DomainStore(session).get(domain_id) is None:
                raise unknown_domain(domain_id)
            return VersionStore(session).of(domain_id)

    def get(self, domain_id: str, number: int) -> DomainState:
        """One version; NotFoundError `unknown_domain`, `unknown_version`."""
        with self._sessions() as session:
            state = VersionStore(session).get(domain_id, number)
            if state is None and DomainStore(session).get(domain_id) is None:
                raise unknown_domain(domain_id)
        if state is None:
            raise unknown_version(domain_id, number)
        return state

    def parent(self, ref: str, backbone: Callable[[], str]) -> DomainState:
        """The version that an adaptation shall start from.

        Parameters
        ----------
        ref : `domain@version`
        backbone : asked last: sha256 of the one that is learnt on

        Raises
        ------
        InvalidError
            `unknown_parent`, `other_backbone`.
        """
        domain_id, _, number = ref.partition("@")
        if not number.isdecimal():
            raise InvalidError("A parent is written `domain@version`.", code="unknown_parent")
        try:
            version = self.get(domain_id, int(number))
        except NotFoundError as error:
            raise InvalidError(str(error), code="unknown_parent") from error
        if version.quarantined is not None:
            raise InvalidError(f"{ref} is quarantined.", code="unknown_parent")
        if version.backbone != backbone():
            raise InvalidError(f"{ref} belongs to another backbone.", code="other_backbone")
        return version

    def state_bytes(self, sha256: str) -> bytes:
        """The safetensors of a state, unchecked; NotFoundError `unknown_state`."""
        with self._sessions() as session:
            tensors = VersionStore(session).tensors(sha256)
        if tensors is None:
            raise NotFoundError("There is no such state.", code="unknown_state")
        return tensors

    def active(self, domain_id: str) -> DomainState:
        """The version that is served.

        Raises
        ------
        NotFoundError
            `unknown_domain`, also when archived.
        ConflictError
            `domain_not_ready`, when no version is active.
        """
        with self._sessions() as session:
            domain = DomainStore(session).get(domain_id)
            if domain is None or domain.archived:
                raise unknown_domain(domain_id)
            state = VersionStore(session).active(domain_id)
        if state is None:
            raise ConflictError(
                f"The domain '{domain_id}' has no active version yet.", code="domain_not_ready"
            )
        return state

    def all_active(self) -> tuple[DomainState, ...]:
        """The served version of every unarchived domain, by domain id."""
        with self._sessions() as session:
            return VersionStore(session).all_active()

    def publish(
        self,
        domain_id: str,
        *,
        state: NewState,
        promote: bool,
        compared_with: int | AnyVersion | None = ANY_VERSION,
        attempt: int | None = None,
        reason: str = "",
        actor: str = "system",
    ) -> DomainState:
        """Record a state as the domain's next version, and serve it if asked.

        At most one version per job: publishing again for the same job returns
        the first. Whether the gate passed is the caller's decision.

        Parameters
        ----------
        promote : make it the active version
        compared_with : the active version that the gate has seen, None for
            none; if another one is active by now, the new one stays a candidate
        attempt : which attempt of `state.job_id` asks; None: no fence
        reason : stands in the promotion and the audit trail

        Raises
        ------
        LeaseLostError
            When another attempt owns the job now, or it is finished.
        NotFoundError, ConflictError
            `unknown_domain`, `domain_archived`.
        """
        with self._sessions.begin() as session:
            row = locked_domain(session, domain_id)
            check_fence(session, state.job_id, attempt)
            store = VersionStore(session)
            published = store.of_job(state.job_id) if state.job_id else None
            if published is not None:
                return published
            added = store.add(domain_id, state)
            promote = promote and compared_with in (ANY_VERSION, row.active_version)
            if promote:
                move_active(session, row, added.number, actor, reason)
            detail = {"sha256": state.sha256, "job": state.job_id, "promoted": promote}
            record_event(session, actor, "version.publish", added.ref, reason=reason, **detail)
            return added

    def of_job(self, job_id: str) -> DomainState | None:
        """What a job has published already, if anything."""
        with self._sessions() as session:
            return VersionStore(session).of_job(job_id)

    def promote(
        self,
        domain_id: str,
        number: int,
        revision: int | None = None,
        actor: str = "system",
        reason: str = "",
    ) -> Domain:
        """Serve another version; nothing happens when it is served already.

        Raises
        ------
        NotFoundError
            `unknown_domain`, `unknown_version`.
        ConflictError
            `stale_revision`, `domain_archived`, `version_quarantined`.
        """
        with self._sessions.begin() as session:
            row = locked_domain(session, domain_id, revision)
            state = VersionStore(session).get(domain_id, number)
            if state is None:
                raise unknown_version(domain_id, number)
            if state.quarantined is not None:
                raise ConflictError(
                    f"Version {number} of '{domain_id}' is quarantined.", code="version_quarantined"
                )
            if row.active_version != number:
                move_active(session, row, number, actor, reason)
                record_event(session, actor, "version.promote", state.ref, reason=reason)
            return DomainStore(session).get_known(domain_id)

    def quarantine(
        self, domain_id: str, number: int, why: str, *, actor: str = "system"
    ) -> DomainState | None:
        """Refuse a version that failed its checks, and serve the one before.

        Returns
        -------
        the version served from now on: the newest one promoted before that is
        sound; None when there is none

        Raises
        ------
        NotFoundError
            `unknown_domain`, `unknown_version`.
        """
        with self._sessions.begin() as session:
            row = locked_domain(session, domain_id)
            store = VersionStore(session)
            state = store.get(domain_id, number)
            if state is None:
                raise unknown_version(domain_id, number)
            if state.quarantined is None:
                store.quarantine(domain_id, number, why)
                if row.active_version == number:
                    sound = store.newest_promoted_sound(domain_id)
                    move_active(session, row, sound, actor, f"{state.ref} quarantined: {why}")
                record_event(session, actor, "version.quarantine", state.ref, reason=why)
            return store.active(domain_id)

    def lift_quarantine(
        self, domain_id: str, number: int, *, actor: str = "system"
    ) -> DomainState | None:
        """Accept a version again, whose bytes the caller has found to be good.

        A domain that has served nothing since serves the newest sound version
        that was ever promoted; where another one is served, that stays.

        Returns
        -------
        the version served from now on

        Raises
        ------
        NotFoundError
            `unknown_domain`, `unknown_version`.
        """
        with self._sessions.begin() as session:
            row = locked_domain(session, domain_id)
            store = VersionStore(session)
            state = store.get(domain_id, number)
            if state is None:
                raise unknown_version(domain_id, number)
            if state.quarantined is not None:
                store.quarantine(domain_id, number, None)
                sound = store.newest_promoted_sound(domain_id)
                if row.active_version is None and sound is not None:
                    move_active(session, row, sound, actor, f"{state.ref} is sound again")
                record_event(session, actor, "version.lift", state.ref, reason=state.quarantined)
            return store.active(domain_id)

    def quarantined(self) -> tuple[DomainState, ...]:
        """Every refused version of the domains that are not archived."""
        with self._sessions() as session:
            return VersionStore(session).quarantined()

    def mend(self, sha256: str, tensors: bytes) -> bool:
        """Store a state's good bytes again; whether those that lay there were others."""
        with self._sessions.begin() as session:
            return VersionStore(session).store_tensors(sha256, tensors)

    def promotions(self, domain_id: str) -> tuple[Promotion, ...]:
        """Every move of the active version, oldest first."""
        with self._sessions() as session:
            return VersionStore(session).promotions(domain_id)


def unknown_version(domain_id: str, number: int) -> NotFoundError:
    return NotFoundError(f"'{domain_id}' has no version {number}.", code="unknown_version")


def check_fence(session: Session, job_id: str | None, attempt: int | None) -> None:
    """Raise LeaseLostError unless `attempt` owns the running job.

    The job's row stays locked, so that nobody takes it before the commit.
    """
    if job_id is None or attempt is None:
        return
    job = JobStore(session).locked(job_id)
    if job is None or job.attempt != attempt or job.state != JobState.RUNNING:
        raise LeaseLostError("Another attempt owns this job now.")


def move_active(
    session: Session, row: DomainRow, number: int | None, actor: str, reason: str
) -> None:
    """Point the locked domain at another version, and write that down."""
    VersionStore(session).add_promotion(row.id, row.active_version, number, actor, reason)
    DomainStore(session).touch(row, active_version=number)
    DomainStore(session).announce(row.id)
